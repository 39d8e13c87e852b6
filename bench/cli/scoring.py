"""Verbs that work on stored predictions."""

from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError, ConfigError
from bench.export.submission import write_submission
from bench.runs import rescore as scoring
from bench.settings.compose import compose_config
from bench.store import predictions_folder, read_all, unscored
from bench.sweep.plan import make


def rescore(overrides: Sequence[str]) -> int:
    """Score all stored predictions again; return 1 if some cannot be scored, or if there are none."""
    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    changed = same = elsewhere = 0
    skipped = []
    for record in read_all(results_dir)[0]:
        if record["status"] != "ok" and not unscored(record):
            continue
        if not predictions_folder(results_dir, record["name"], record["run_id"]).exists():
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
            f"Runs without predictions in {results_dir}/predictions, which git does not keep: {elsewhere}. "
            "To score one, run it again with another results_dir."
        )
    print(*skipped, f"changed {changed} | same {same} | not scored {len(skipped) + elsewhere}", sep="\n")
    return 1 if skipped or (elsewhere and not changed + same) else 0


def submit(overrides: Sequence[str], to: Path) -> int:
    """Write GLUE's submission zip from a sweep's predictions."""
    if to.suffix != ".zip":
        raise ConfigError(f"--to ({to}) must be a zip file, such as glue.zip.")
    files = write_submission(make(overrides).runs, to)
    print(f"{to}: {', '.join(files)}")
    return 0
