"""The fault test as a command: three sweeps of tiny runs on one store, under all that befalls processes, disks and clocks.

python -m tests.support.faults [--runs 200] [--workers 4] [--every 4]: ends with status 0 if every run has exactly one whole record,
nothing is lost, only what a fault hit was begun twice, and each repair was reported. It prints what it did and counted.

The faults: workers killed with -9; holders frozen for longer than their lease, then woken; records cut in half; once, a full
disk. Meanwhile a third of all processes show life with a clock that is seven minutes ahead, and a third with one that is as
late. From LARGE runs on the frozen sleep as long as a lease takes; below, their claims are made old from outside.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bench import store
from bench.store import claims
from tests.support.claimant import lives

ROOT = Path(__file__).resolve().parents[2]
FAILING = 20  # every 20th run, or one, has a learning rate that makes training diverge: 5 %
LARGE = 1000  # runs
SKEW = 420  # seconds by which processes' clocks are wrong
VICTIMS = 2  # times that one run may lose its holder: the third death makes it a failure
ENDED_WELL = [0, 0, 1]  # the three sweeps' exit statuses: the third has only runs that fail by themselves
PATIENCE = 60.0  # seconds beyond its lease for which a frozen holder waits to be taken over


def tiny_model(folder: Path) -> Path:
    """Return a folder with a BERT of random weights, 30,522 x 8, and MiniLM's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from bench.models.location import locate
    from bench.settings.compose import compose_config

    AutoTokenizer.from_pretrained(
        locate(compose_config(["model=all-minilm-l6-v2"]).model)[0]
    ).save_pretrained(folder)
    BertModel(
        BertConfig(
            vocab_size=30522, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    ).save_pretrained(folder)
    return folder


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[str | None]:
    """Make `folder` a disk of its own in memory; yields why that is not possible here, or None. 0 megabytes: it is not tried."""
    folder.mkdir(parents=True)
    if not megabytes:
        yield "not asked for"
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    try:
        yield mounted.stderr.strip() or None if mounted.returncode else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


class Sweeps:
    """Three sweeps on one store, started together, again where asked: what they write is kept in files."""

    def __init__(self, folder: Path, model: Path, runs: int, workers: int) -> None:
        self.folder, self.results = folder, folder / "results"
        self.failing = max(1, runs // FAILING)
        common = [
            *("sweep=smoke", "model.name=tiny", "model.source=local", f"model.path={model}"),
            *("model.sha256=null", "model.width=8", "model.revision=null", "embedding=dense", "device=cpu"),
            *("training.max_steps=2", "training.warmup_fraction=0"),
            *(f"results_dir={self.results}", f"cache_dir={folder}/cache"),
        ]
        learning = [*common, "--seeds", str(runs - self.failing)]
        diverging = ["training.learning_rate=1e30", "training.max_grad_norm=1e30", "training.max_steps=30"]
        self.sweeps = [
            [*learning, f"workers={workers}"],
            [*learning, "workers=1"],
            [*common, *diverging, "--seeds", str(self.failing), "workers=1"],
        ]
        self.processes: list[subprocess.Popen[str]] = []
        self.round = 0

    def start(self) -> None:
        """Start the three, as a user who gives the same commands again."""
        self.round += 1
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench", "sweep", *arguments],
                cwd=ROOT,
                stdout=self._log(number, "out"),
                stderr=self._log(number, "err"),
                text=True,
            )
            for number, arguments in enumerate(self.sweeps)
        ]

    def _log(self, number: int, kind: str) -> IO[str]:
        return open(self.folder / f"{self.round}-{number}.{kind}", "w")

    def running(self) -> bool:
        """Return whether one of them still runs."""
        return any(process.poll() is None for process in self.processes)

    def statuses(self) -> list[int]:
        """Return their exit statuses when all have ended."""
        return [process.wait() for process in self.processes]

    def stop(self) -> None:
        """End what still runs; the workers of a killed sweep end by themselves when they have nobody to report to."""
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self, kind: str) -> str:
        """Return all that they wrote to standard output (out) or standard error (err) so far."""
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"*.{kind}")))

    def records(self) -> list[Path]:
        """Return the files of the records that are there."""
        return list((self.results / "runs").rglob("*.json"))


class Faults:
    """What is done to the sweeps, one fault after another, and what was done."""

    def __init__(self, sweeps: Sweeps, generator: random.Random, patient: bool) -> None:
        self.sweeps, self.generator, self.patient = sweeps, generator, patient
        self.turn = 0
        self.done: Counter[str] = Counter()
        self.victims: Counter[str] = Counter()  # run_id -> how often its holder was killed or frozen
        self.frozen: dict[int, tuple[Path, float]] = {}  # pid -> its claim, and when it was frozen
        self.cut: set[Path] = set()

    def next(self) -> bool:
        """Do the next fault of a cycle that can be done now; return whether there was one.

        The first is a kill, however long it takes to find a holder: a small sweep might end without one.
        """
        if not self.done["killed"]:
            return self.kill()
        kinds = (self.kill, self.cut_a_record, self.kill, self.freeze)
        for _ in kinds:
            self.turn += 1
            if kinds[self.turn % len(kinds)]():
                return True
        return False

    def _holder(self) -> tuple[int, Path] | None:
        """Return a process that works on a run, and its claim."""
        held = sorted((self.sweeps.results / "runs").rglob("*.claim[0-9]*"))
        self.generator.shuffle(held)
        for claim in held:
            with suppress(OSError, ValueError):  # it has just ended, or is just beginning
                pid = json.loads(claim.read_text())["pid"]
                if self.victims[_run_id(claim)] < VICTIMS and pid not in self.frozen and lives(str(pid)):
                    return pid, claim
        return None

    def kill(self) -> bool:
        """Kill a holder with SIGKILL."""
        if (found := self._holder()) is None:
            return False
        os.kill(found[0], signal.SIGKILL)
        self.victims[_run_id(found[1])] += 1
        self.done["killed"] += 1
        return True

    def freeze(self) -> bool:
        """Freeze a holder as if its machine slept; its claim grows old."""
        if len(self.frozen) == 2 or (found := self._holder()) is None:
            return False
        pid, claim = found
        os.kill(pid, signal.SIGSTOP)
        if not self.patient:
            with suppress(FileNotFoundError):
                os.utime(claim, (time.time() - claims.SKEW - SKEW - 60,) * 2)
        self.victims[_run_id(claim)] += 1
        self.frozen[pid] = claim, time.monotonic()
        self.done["frozen"] += 1
        return True

    def wake(self) -> None:
        """Wake the holders whose lease is over, once another has taken their run, or has had the time to."""
        for pid, (claim, since) in list(self.frozen.items()):
            lease = claims.EXPIRY + claims.BEAT if self.patient else 0.0
            newer = claim.with_suffix(f".claim{int(claim.suffix.removeprefix('.claim')) + 1}")
            taken_over = newer.exists() or not claim.exists()
            asleep = time.monotonic() - since
            if asleep > lease and (taken_over or asleep > lease + PATIENCE):
                del self.frozen[pid]
                with suppress(ProcessLookupError):  # its launcher was stopped and has killed it
                    os.kill(pid, signal.SIGCONT)
                self.done["woken after another took over" if taken_over else "woken as the holder"] += 1

    def shift_clocks(self) -> None:
        """Give the newest heartbeats the times of nodes whose clocks are wrong, as a file system does that asks the node."""
        for claim in (self.sweeps.results / "runs").rglob("*.claim[0-9]*"):
            with suppress(OSError, ValueError):  # it is just given up, or being written
                pid, beat = json.loads(claim.read_text())["pid"], claim.stat().st_mtime
                if (shift := (0, SKEW, -SKEW)[pid % 3]) and abs(time.time() - beat) < SKEW / 2:
                    os.utime(claim, (beat + shift,) * 2)
                    self.done["heartbeats shifted"] += 1

    def cut_a_record(self) -> bool:
        """Cut a record in half, as a file server does that loses what it had promised to keep."""
        whole = [path for path in self.sweeps.records() if path not in self.cut]
        if not whole:
            return False
        path = self.generator.choice(whole)
        os.truncate(path, path.stat().st_size // 2)
        self.cut.add(path)
        self.done["cut in half"] += 1
        return True

    def fill_the_disk(self) -> None:
        """Fill the store's disk until all sweeps have stopped, and make room again."""
        filler = self.sweeps.results / "filler"
        end = time.monotonic() + 300
        while self.sweeps.running():
            assert time.monotonic() < end, "the sweeps do not notice a full disk"
            with open(filler, "ab", buffering=0) as file, suppress(OSError):
                while file.write(bytes(1 << 12)):
                    pass
            self.wake()
            time.sleep(0.2)
        filler.unlink()
        self.done["full disk"] += 1


def _run_id(claim: Path) -> str:
    return claim.stem.rpartition("-")[2]


def faults(
    folder: Path, model: Path, runs: int, workers: int, every: float, megabytes: int = 0
) -> dict[str, object]:
    """Return what was counted when all sweeps have ended; raises AssertionError for anything lost, torn or done twice.

    `every`: seconds between faults. `megabytes`: of the disk that is full at half time; 0: that fault is left out.
    """
    with small_disk(folder / "results", megabytes) as no_disk:
        sweeps = Sweeps(folder, model, runs, workers)
        try:
            return _faults(sweeps, runs, every, no_disk)
        finally:
            sweeps.stop()


def _faults(sweeps: Sweeps, runs: int, every: float, no_disk: str | None) -> dict[str, object]:
    begun = time.monotonic()
    done = Faults(sweeps, random.Random(0), patient=runs >= LARGE)
    if no_disk:
        print(f"SKIPPED: the full disk ({no_disk})", flush=True)

    # Fault after fault, but a slow machine must get on in between; at half time the disk is full.
    sweeps.start()
    last, before = time.monotonic(), 0
    while sweeps.running():
        time.sleep(0.2 if done.done["killed"] else 0.02)  # a tiny run holds its claim for a moment only
        done.shift_clocks()
        done.wake()
        ended = len(sweeps.records())
        if no_disk is None and not done.done["full disk"] and ended >= runs // 2:
            done.fill_the_disk()
            full = sweeps.statuses()
            assert 3 in full and set(full) <= {0, 1, 3}, full
            sweeps.start()
        if time.monotonic() - last > every and ended > before and done.next():
            last, before = time.monotonic(), ended

    # The same commands once more do what a late fault left, and say in the end that nothing is missing. With few runs there may be
    # nothing left: the tests save that time.
    last_statuses = sweeps.statuses()
    records, problems = store.read_all(sweeps.results)
    if runs > FAILING or last_statuses != ENDED_WELL or problems or len(records) < runs:
        sweeps.start()
        last_statuses = sweeps.statuses()
    counted = _count(sweeps, done, runs) | {"seconds": round(time.monotonic() - begun)}
    print(json.dumps(counted, indent=1), flush=True)
    assert last_statuses == ENDED_WELL, (last_statuses, sweeps.said("err")[-3000:])
    _check(sweeps, done, runs)
    return counted


def _count(sweeps: Sweeps, done: Faults, runs: int) -> dict[str, object]:
    records, _ = store.read_all(sweeps.results)
    return {
        "runs": runs,
        "faults": dict(done.done),
        "statuses": dict(Counter(record["status"] for record in records)),
        "carried out": len(_carried_out(sweeps)),
        "repaired": len(list((sweeps.results / "runs").rglob("*.corrupt"))),
        "rounds": sweeps.round,
        "closing lines": [
            line
            for line in sweeps.said("out").splitlines()
            if line.startswith("done ") and " | failed " in line
        ],
    }


def _carried_out(sweeps: Sweeps) -> list[str]:
    return [line for line in sweeps.said("err").splitlines() if "accuracy = " in line or "| diverged" in line]


def _check(sweeps: Sweeps, done: Faults, runs: int) -> None:
    records, problems = store.read_all(sweeps.results)
    assert not problems, problems
    per_run = Counter(record["run_id"] for record in records)
    assert set(per_run.values()) == {1} and len(per_run) == runs, "every run has exactly one record"
    statuses = Counter(record["status"] for record in records)
    assert statuses == {"ok": runs - sweeps.failing, "diverged": sweeps.failing}, (
        "only those fail that fail by themselves"
    )
    hit = sum(done.victims.values()) + len(done.cut) + done.done["full disk"] * 10
    assert runs <= len(_carried_out(sweeps)) <= runs + hit, "only what a fault hit is carried out twice"

    said = sweeps.said("err")
    for path in done.cut:
        assert f"{path} could not be read" in said, f"the repair of {path} was not reported"
        assert path.with_name(f"{path.name}.corrupt").exists(), "what was there is kept"
    assert "Traceback" not in said, said[said.index("Traceback") :][:3000]

    # What the killed left, gc finds and removes; of what lives there is nothing left.
    left = [*sweeps.results.rglob("*.claim*"), *(sweeps.results / "runs").rglob("*.tmp")]
    assert len(left) <= 2 * sum(done.victims.values()), left
    subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            "gc",
            "--delete",
            f"results_dir={sweeps.results}",
            f"cache_dir={sweeps.folder}/cache",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert not [*sweeps.results.rglob("*.claim*"), *(sweeps.results / "runs").rglob("*.tmp")]


def main() -> None:
    """Run the fault test in a temporary folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument(
        "--workers", type=int, default=4, help="of the first sweep; the two others have one each"
    )
    parser.add_argument("--every", type=float, default=4.0, help="seconds between faults")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults(
            Path(folder),
            tiny_model(Path(folder) / "model"),
            arguments.runs,
            arguments.workers,
            arguments.every,
            megabytes=64 + arguments.runs // 8,
        )
    print("every run has exactly one whole record; nothing lost, nothing double, every repair reported")


if __name__ == "__main__":
    main()
