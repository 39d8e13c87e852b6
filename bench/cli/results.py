"""Verbs that read records and write what people read."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import option
from bench.errors import BenchError, ConfigError
from bench.settings.schema import RunConfig

if TYPE_CHECKING:
    from bench.store import Record

log = logging.getLogger("bench")


def report(overrides: Sequence[str]) -> int:
    """Write tables, figures, INDEX.md and brief.html from the records (results_dir=<folder>; --against <folder> compares two)."""
    from bench.settings.compose import compose_config

    other, rest = option(
        overrides, "--against", "give the folder of other results, as in --against before/results"
    )
    config = compose_config(rest)
    status = write(config)
    if other is None:
        return status
    from bench.report.compare import write_comparison

    (before, unread), (now, _) = read(Path(other)), read(Path(config.results_dir))
    print(*write_comparison(before, now, Path(config.results_dir)), sep="\n")
    return 1 if unread else status


def write(config: RunConfig) -> int:
    """Write the report of the results folder; return the exit status."""
    from bench.report import write_report

    results_dir = Path(config.results_dir)
    records, problems = read(results_dir)
    written = write_report(records, problems, results_dir, config=config)
    print(f"{len(records)} records; {len(written)} files, begin with {results_dir / 'INDEX.md'}")
    return 1 if problems else 0


def gate(overrides: Sequence[str]) -> int:
    """Check a configuration against declared limits and exit 1 if one is broken (gate=<name> results_dir=<folder>)."""
    from bench.report import gate as gates
    from bench.report.runs import to_frame
    from bench.report.scores import score_table
    from bench.settings.compose import compose_config
    from bench.store import read_coverage

    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    records, problems = read(results_dir)
    if not records:
        raise BenchError(f"No records in {results_dir / 'runs'}: no limit can be checked.")
    frame = to_frame(records)
    found = gates.checks(
        frame, score_table(frame, config.report.tolerated_loss), read_coverage(results_dir), config
    )
    print(*gates.lines(found), sep="\n")
    return 1 if problems or not all(check.held for check in found) else 0


def rescore(overrides: Sequence[str]) -> int:
    """Compute all metrics again from the stored predictions, without training (results_dir=<folder> data.root=<folder>)."""
    from bench.runs.rescore import rescore as rescore_one
    from bench.settings.compose import compose_config
    from bench.store import predictions_folder, read_all, unscored

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
            if rescore_one(record, config.data, results_dir):
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


def submit(overrides: Sequence[str]) -> int:
    """Write GLUE's submission zip from a sweep's predictions (sweep=glue_test to=<file.zip>)."""
    from bench.export.submission import write_submission
    from bench.sweep.plan import make

    to = [o.removeprefix("to=") for o in overrides if o.startswith("to=")]
    if len(to) != 1 or not to[0].endswith(".zip"):
        raise ConfigError("to must be set once, to the zip file to write: to=glue.zip.")
    made = make([o for o in overrides if not o.startswith("to=")])
    files = write_submission(made.runs, Path(to[0]))
    print(f"{to[0]}: {', '.join(files)}")
    return 0


def export(arguments: Sequence[str]) -> int:
    """Write a run's model to a folder that others load (RUN_ID or key=value, --to DIR; --materialise, --retrain, --onnx, --int8, --evaluate)."""
    from bench.export.command import export as export_one

    to = export_one(arguments)
    for path in sorted(to.iterdir()):
        print(f"{path.stat().st_size:14,}  {path}")
    return 0


def read(results_dir: Path) -> tuple[list["Record"], list[tuple[Path, str]]]:
    """Read all records. Return the valid ones, and (path, reason) for each that cannot be used; log the latter."""
    from bench.store import flaw, path_of, read_all

    found, problems = read_all(results_dir)
    flaws = [flaw(record) for record in found]
    records = [record for record, reason in zip(found, flaws, strict=True) if reason is None]
    problems += [
        (path_of(results_dir, record["name"], record["run_id"]), reason)
        for record, reason in zip(found, flaws, strict=True)
        if reason
    ]
    for path, reason in problems:
        log.error(
            "%s cannot be read (%s): it is left out; move it away and run the sweep again", path, reason
        )
    return records, problems
