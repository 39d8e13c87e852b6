"""Verbs that work on stored predictions."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError, ConfigError
from bench.export.submission import write_submission
from bench.runs import rescore as scoring
from bench.runs.rescore import evaluated_rows, labels_of
from bench.settings.compose import compose_config
from bench.store import (
    Packed,
    Record,
    packed,
    packed_file,
    predictions_folder,
    read_all,
    read_packed,
    unscored,
    write_packed,
)
from bench.sweep.plan import make


def rescore(overrides: Sequence[str]) -> int:
    """Score all stored predictions again; return 1 if some cannot be scored, or if there are none."""
    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    changed = same = elsewhere = 0
    skipped = []
    for record in _records(results_dir):
        if record["status"] != "ok" and not unscored(record):
            continue
        if not _has_predictions(record, results_dir):
            elsewhere += 1
            continue
        try:
            if scoring.rescore(record, config.data, results_dir):
                changed += 1
                print(f"changed {record['name']}")
            else:
                same += 1
        except BenchError as error:
            skipped.append(f"not scored {record['name']}: {error}")
    if elsewhere:
        print(
            f"Runs without predictions in {results_dir}: {elsewhere}. Git keeps only those of `bench pack`. "
            "To score one, run it again with another results_dir."
        )
    print(*skipped, f"changed {changed} | same {same} | not scored {len(skipped) + elsewhere}", sep="\n")
    return 1 if skipped or (elsewhere and not changed + same) else 0


def _records(results_dir: Path) -> list[Record]:
    """Return the records that can be read; raises ConfigError where there are none."""
    if not (records := read_all(results_dir)[0]):
        raise ConfigError(f"results_dir ({results_dir}) has no records: correct it, or run a sweep first.")
    return records


def _has_predictions(record: Record, results_dir: Path) -> bool:
    name, run_id = record["name"], record["run_id"]
    folder = predictions_folder(results_dir, name, run_id)
    return folder.exists() or bool(read_packed(packed_file(results_dir, name), run_id))


def pack(overrides: Sequence[str]) -> int:
    """Pack all stored predictions, one file for each model and task; return 1 if some cannot be packed.

    A run whose folder is gone keeps its packed predictions, as long as its record is there.
    """
    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    skipped: list[str] = []
    files: defaultdict[Path, list[Packed]] = defaultdict(list)
    for record in (record for record in _records(results_dir) if record["status"] == "ok"):
        folder, run_id = predictions_folder(results_dir, record["name"], record["run_id"]), record["run_id"]
        path = packed_file(results_dir, record["name"])
        try:
            if folder.exists():
                files[path] += packed(folder, run_id, labels_of(*evaluated_rows(record, config.data)))
            else:
                files[path] += read_packed(path, run_id)
        except BenchError as error:
            skipped.append(f"not packed {record['name']}: {error}")
            files[path] += read_packed(path, run_id)
    for path, lines in files.items():
        if lines:
            write_packed(path, lines)
            print(f"{path}: runs {len({line.run_id for line in lines})}, {path.stat().st_size:,} bytes")
    print(*skipped, sep="\n", end="\n" if skipped else "")
    return 1 if skipped else 0


def submit(overrides: Sequence[str], to: Path) -> int:
    """Write GLUE's submission zip from a sweep's predictions."""
    if to.suffix != ".zip":
        raise ConfigError(f"--to ({to}) must be a zip file, such as glue.zip.")
    files = write_submission(make(overrides).runs, to)
    print(f"{to}: {', '.join(files)}")
    return 0
