"""Verbs that read records or measurements and write what people read. None of them imports torch."""

import json
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.logs import log
from bench.perf.chart import draw
from bench.report import gate as gates
from bench.report import write_report
from bench.report.compare import write_comparison
from bench.report.replicates import with_replicates
from bench.report.runs import to_frame
from bench.report.scores import score_table
from bench.settings.compose import compose_config
from bench.settings.schema import RunConfig
from bench.store import Record, flaw, path_of, read_all, read_coverage, with_profiles


def report(overrides: Sequence[str], against: Path | None) -> int:
    """Write the report of the results folder, and its comparison with the folder `against`; return 1 if a record is unusable."""
    config = compose_config(overrides)
    status = write(config)
    if against is None:
        return status
    (before, unread), (now, _) = read(against), read(Path(config.results_dir))
    print(*write_comparison(before, now, Path(config.results_dir)), sep="\n")
    return 1 if unread else status


def write(config: RunConfig) -> int:
    """Write the report of the results folder; return 1 if a record is unusable."""
    results_dir = Path(config.results_dir)
    records, problems = read(results_dir)
    written = write_report(records, problems, results_dir, config=config)
    print(f"{len(records)} records; {len(written)} files, begin with {results_dir / 'INDEX.md'}")
    return 1 if problems else 0


def gate(overrides: Sequence[str]) -> int:
    """Check a configuration against the limits of the gate; return 1 if one is broken or a record is unusable."""
    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    records, problems = read(results_dir)
    if not records:
        raise BenchError(f"No records in {results_dir / 'runs'}: no limit can be checked.")
    frame = with_replicates(to_frame(records), records, results_dir)
    scores = score_table(frame, config.report.tolerated_loss)
    checks = gates.checks(frame, scores, read_coverage(results_dir), config)
    print(*gates.lines(checks), sep="\n")
    return 1 if problems or not all(check.held for check in checks) else 0


def chart(overrides: Sequence[str]) -> int:
    """Draw the charts of what `perf` measured."""
    folder = Path(compose_config(overrides).results_dir) / "perf"
    measurements = sorted(folder.glob("*.json"))
    if not measurements:
        raise BenchError(f"No measurements in {folder}: run `make perf` first, or set results_dir.")
    for path in measurements:
        print(*draw(json.loads(path.read_text()), path), sep="\n")
    return 0


def read(results_dir: Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """Read all records. Return the valid ones, and (path, reason) for each that cannot be used; log the latter.

    The records have what `bench latency` measured.
    """
    records, problems = read_all(results_dir)
    valid = []
    for record in records:
        if reason := flaw(record):
            problems.append((path_of(results_dir, record["name"], record["run_id"]), reason))
        else:
            valid.append(record)
    for path, reason in problems:
        log.error(
            "%s cannot be read (%s): it is left out; move it away and run the sweep again", path, reason
        )
    return with_profiles(valid, results_dir), problems
