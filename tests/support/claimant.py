"""A process that works through records as workers do, and tells if it ever meets another at the same one: python claimant.py DIR."""

import os
import random
import sys
import time
from pathlib import Path

from bench.store import claims


def main(folder: Path) -> None:
    """Carry out each record of `folder`/todo: hold its claim, sleep a little, write it."""
    left = [folder / name for name in (folder / "todo").read_text().split()]
    random.shuffle(left)
    while left:
        for record in list(left):
            if record.exists():
                left.remove(record)
            elif claim := claims.take(record):
                if not record.exists():
                    work(folder, record)
                claim.release()
        time.sleep(0.01)


def work(folder: Path, record: Path) -> None:
    """Write the record; `busy` names who is at it, and must not name a living process."""
    busy = record.with_suffix(".busy")
    if busy.exists() and lives(busy.read_text() or "0"):
        (folder / "violation").write_text(f"{os.getpid()} met {busy.read_text()} at {record}")
    busy.write_text(str(os.getpid()))
    with open(folder / "begun", "a") as log:
        log.write(f"{record.name}\n")
    time.sleep(random.uniform(0, 0.05))
    temporary = record.with_suffix(f".{os.getpid()}")
    temporary.write_text("{}")
    temporary.rename(record)
    busy.unlink()


def lives(pid: str) -> bool:
    """Return whether there is such a process; a killed one that its parent has not waited for yet is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
