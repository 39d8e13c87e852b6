"""The command line: `python -m bench <verb> [key=value ...]`. Each verb is a few lines that call a room."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import RunConfig
from bench.errors import BenchError, ConfigError, unknown

if TYPE_CHECKING:
    from bench.drift import Comparison
    from bench.store import Record

log = logging.getLogger("bench")


def set_up_logging() -> None:
    """Send progress to standard error, one line an event, with the time."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    for key, value in {"TOKENIZERS_PARALLELISM": "false", "DATASETS_VERBOSITY": "error", "HF_HUB_VERBOSITY": "error"}.items():
        os.environ.setdefault(key, value)


def run(overrides: Sequence[str]) -> int:
    """Run one configuration (any Hydra override; --multirun for several), unless its record is there already."""
    from bench.hydra_app import main

    return main(overrides)


def plan(arguments: Sequence[str]) -> int:
    """Print how many runs a sweep has, how many are done and what is left (sweep=<name>)."""
    from bench.sweep.launch import describe
    from bench.sweep.plan import make
    from bench.sweep.select import parse

    flags, overrides = parse(arguments)
    print(describe(make(overrides, flags)))
    return 0


def sweep(arguments: Sequence[str]) -> int:
    """Run what a sweep still misses, then report (sweep=<name>; --limit N, --only key=value, --seeds N, --wait)."""
    return _sweep(arguments, None)


def retry(arguments: Sequence[str]) -> int:
    """Run a sweep's failed runs again, and what is missing, then report (sweep=<name>)."""
    return _sweep(arguments, "failed")


def _sweep(arguments: Sequence[str], overwrite: str | None) -> int:
    from bench.sweep.launch import closing, sweep

    plan, todo = sweep(arguments, overwrite)
    if plan.known:
        _report(plan.config)
    return _tell(*closing(plan, todo))


def status(arguments: Sequence[str]) -> int:
    """Print a sweep's runs by state, with the last line of each failure (sweep=<name>)."""
    from bench.sweep.launch import status

    return _tell(*status(arguments))


def cancel(arguments: Sequence[str]) -> int:
    """Stop a sweep wherever it runs; the same sweep goes on from there later (sweep=<name>)."""
    from bench.sweep.launch import cancel

    print(cancel(arguments))
    return 0


def gc(arguments: Sequence[str]) -> int:
    """Print what takes space and can be made again or belongs to nobody, never records; --delete removes it."""
    from bench.compose import compose_config
    from bench.sweep.gc import find, remove

    config = compose_config([argument for argument in arguments if argument != "--delete"])
    found = find(Path(config.results_dir), Path(config.cache_dir))
    for garbage in found:
        print(f"{garbage.size / 1e6:10.2f} MB  {garbage.path}  ({garbage.reason})")
        if "--delete" in arguments:
            remove(garbage)
    said = "removed" if "--delete" in arguments else "can be removed with --delete"
    print(f"{sum(garbage.size for garbage in found) / 1e6:.2f} MB in {len(found)} places {said}")
    return 0


def _tell(lines: Sequence[str], failed: bool) -> int:
    print("\n".join(lines))
    return 1 if failed else 0


def report(overrides: Sequence[str]) -> int:
    """Write tables, figures, INDEX.md and brief.html from the records (results_dir=<folder>; --against <folder> compares two)."""
    from bench.compose import compose_config

    other, rest = _option(overrides, "--against", "give the folder of other results, as in --against before/results")
    config = compose_config(rest)
    status = _report(config)
    if other is None:
        return status
    from bench.report.against import write_against

    (before, unread), (now, _) = _records(Path(other)), _records(Path(config.results_dir))
    print(*write_against(before, now, Path(config.results_dir)), sep="\n")
    return 1 if unread else status


def gate(overrides: Sequence[str]) -> int:
    """Check a configuration against declared limits and exit 1 if one is broken (gate=<name> results_dir=<folder>)."""
    from bench.compose import compose_config
    from bench.report import gate as gates
    from bench.report.domain import read_coverage
    from bench.report.frame import to_frame
    from bench.report.summary import sections

    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    records, problems = _records(results_dir)
    if not records:
        raise BenchError(f"No records in {results_dir / 'runs'}: no limit can be checked.")
    frame = to_frame(records)
    found = gates.checks(frame, sections(frame, config.report.tolerated_loss), read_coverage(results_dir), config)
    print(*gates.said(found), sep="\n")
    return 1 if problems or not all(check.held for check in found) else 0


def perf(overrides: Sequence[str]) -> int:
    """Measure the Trainer and our engines side by side (perf.backbones=[...], perf.sides=[...], device=auto|cpu|cuda)."""
    from bench.compose import compose_config
    from bench.perf.measure import measure
    from bench.run import pick_device

    config = compose_config(overrides)
    path = measure(config, pick_device(config.device))
    print(path.with_suffix(".md").read_text())
    report = json.loads(path.read_text())
    return 1 if any(part and part["error"] for part in (report["startup"], *report["rows"])) else 0


def sameness(overrides: Sequence[str]) -> int:
    """Train MRPC, RTE and STS-B with the eager and the graph engine on a GPU and print the differences (data.root=<folder>)."""
    from bench.sameness import compare

    compared = compare(overrides)
    for one in compared:
        print(f"{one.task} {one.metric}: eager {one.eager}, graph {one.other}; mean difference {one.difference:+.4f}, "
              f"standard deviation over seeds {one.spread:.4f}: {'same' if one.same else 'DIFFERENT'}")
    return 0 if all(one.same for one in compared) else 1


def chart(overrides: Sequence[str]) -> int:
    """Draw the charts of what `perf` measured (results_dir=<folder>)."""
    from bench.compose import compose_config
    from bench.perf.chart import draw

    folder = Path(compose_config(overrides).results_dir) / "perf"
    measured = sorted(folder.glob("*.json"))
    if not measured:
        raise BenchError(f"No measurements in {folder}: run `make perf` first, or set results_dir.")
    for path in measured:
        for file in draw(json.loads(path.read_text()), path):
            print(file)
    return 0


def _report(config: RunConfig) -> int:
    from bench.report import write_report

    results_dir = Path(config.results_dir)
    records, problems = _records(results_dir)
    written = write_report(records, problems, results_dir, config=config)
    print(f"{len(records)} records; {len(written)} files, begin with {results_dir / 'INDEX.md'}")
    return 1 if problems else 0


def _records(results_dir: Path) -> tuple[list["Record"], list[tuple[Path, str]]]:
    from bench.report.frame import flaw
    from bench.store import path_of, read_all

    found, problems = read_all(results_dir)
    flaws = [flaw(record) for record in found]
    records = [record for record, reason in zip(found, flaws, strict=True) if reason is None]
    problems += [(path_of(results_dir, record["name"], record["run_id"]), reason) for record, reason in zip(found, flaws, strict=True) if reason]
    for path, reason in problems:
        log.error("%s cannot be read (%s): it is left out; move it away and run the sweep again", path, reason)
    return records, problems


def _option(arguments: Sequence[str], name: str, hint: str) -> tuple[str | None, list[str]]:
    """Return the value that follows the option (None without it) and the other arguments."""
    given = list(arguments)
    if name not in given:
        return None, given
    at = given.index(name)
    if at == len(given) - 1:
        raise ConfigError(f"{name} has no value: {hint}.")
    return given[at + 1], [*given[:at], *given[at + 2:]]


def tasks(overrides: Sequence[str]) -> int:
    """Print every task's splits with the rows found and the official ones (data.root=<folder>, data.source=...)."""
    from bench.compose import compose_config
    from bench.tasks.data import task_names
    from bench.tasks.inventory import inventory

    print(inventory(compose_config(overrides).data, task_names()).to_string(index=False, justify="left"))
    return 0


def fetch(arguments: Sequence[str]) -> int:
    """Download models and data once, for use without the hub (models=minilm,bert_base tasks=mrpc,rte)."""
    from bench.fetch import fetch as fetch_all

    names = {"models": "", "tasks": ""}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in names:
            raise ConfigError(unknown("key of fetch", key, names))
        names[key] = value
    if not any(names.values()):
        raise ConfigError("Nothing to fetch: name models=<name,...> or tasks=<name,...>.")
    for got in fetch_all(*([name for name in names[key].split(",") if name] for key in ("models", "tasks"))):
        print(f"{got.name:24} {got.bytes / 1e6:10,.1f} MB  {got.folder}", flush=True)
    return 0


def rescore(overrides: Sequence[str]) -> int:
    """Compute all metrics again from the stored predictions, without training (results_dir=<folder> data.root=<folder>)."""
    from bench.compose import compose_config
    from bench.rescore import rescore as rescore_one
    from bench.store import read_all

    config = compose_config(overrides)
    results_dir = Path(config.results_dir)
    changed = same = 0
    skipped = []
    for record in read_all(results_dir)[0]:
        if record["status"] != "ok":
            continue
        try:
            if rescore_one(record, config.data, results_dir):
                changed += 1
                print(f"changed {record['name']}")
            else:
                same += 1
        except BenchError as error:
            skipped.append(f"not scored {record['name']}: {error}")
    print(*skipped, f"changed {changed} | same {same} | not scored {len(skipped)}", sep="\n")
    return 1 if skipped else 0


def submit(overrides: Sequence[str]) -> int:
    """Write GLUE's submission zip from a sweep's predictions (sweep=glue_test to=<file.zip>)."""
    from bench.submit import write_submission
    from bench.sweep.plan import make

    to = [o.removeprefix("to=") for o in overrides if o.startswith("to=")]
    if len(to) != 1 or not to[0].endswith(".zip"):
        raise ConfigError("to must be set once, to the zip file to write: to=glue.zip.")
    made = make([o for o in overrides if not o.startswith("to=")])
    files = write_submission(made.runs, Path(to[0]))
    print(f"{to[0]}: {', '.join(files)}")
    return 0


def search(arguments: Sequence[str]) -> int:
    """Find the front of accuracy against stored bytes with Optuna, then report (search=<name>; several may run at once)."""
    from bench.search import search

    found = search(arguments)
    _report(found.config)
    return _tell(found.lines, found.failed)


def fit(overrides: Sequence[str]) -> int:
    """Measure how well a sweep's embeddings fit the pretrained table, without training (sweep=<name>, default budget)."""
    from bench.fit import fits
    from bench.report.fit import write_fit
    from bench.sweep.plan import expand, load

    named = any(override.startswith("sweep=") for override in overrides)
    expanded = expand(*load(overrides if named else ["sweep=budget", *overrides]))
    runs = [prepared for prepared, _ in expanded.values()]
    results_dir = Path(runs[0].config.results_dir)
    for model in dict.fromkeys(run.config.model.name for run in runs):
        paths = write_fit(fits([run for run in runs if run.config.model.name == model]), results_dir / "fit")
        print("\n".join(map(str, paths)))
    return 0


def cost(arguments: Sequence[str]) -> int:
    """Measure latency, memory and cold start of a sweep's embeddings beside dense, into records too (sweep=<name>, device=auto|cpu|cuda)."""
    from bench.measure.profile import into_records, profile
    from bench.report.cost import write_cost
    from bench.run import pick_device
    from bench.sweep.plan import expand, load
    from bench.sweep.select import parse

    flags, overrides = parse(arguments)
    named = any(override.startswith("sweep=") for override in overrides)
    runs = [run for run, _ in expand(*load(overrides if named else ["sweep=demo", *overrides]), flags).values()]
    results_dir = Path(runs[0].config.results_dir)
    for model in dict.fromkeys(run.config.model.name for run in runs):
        measured = profile([run for run in runs if run.config.model.name == model], pick_device(runs[0].config.device))
        paths = write_cost(measured, results_dir / "cost")
        print(paths[1].read_text(), *paths, f"written into {into_records(measured, results_dir)} records", sep="\n")
    return 0


def coverage(overrides: Sequence[str]) -> int:
    """Say how a text is covered by vocabulary and embedding (--corpus <file>, then key=value as for run)."""
    from bench.compose import compose_config
    from bench.coverage import cover, write_coverage
    from bench.identity import prepare

    corpus, rest = _needed(overrides, "--corpus")
    prepared = prepare(compose_config(rest))
    found = cover(prepared, corpus)
    for name, value in found.facts.items():
        print(f"{name:18} {value:,.4g}")
    print("\n".join(map(str, write_coverage(found, corpus, prepared, Path(prepared.config.results_dir) / "coverage"))))
    return 0


def drift(arguments: Sequence[str]) -> int:
    """Compare live text with what an embedding was made for (--reference <text> --current <text> <model> key=value); 1 past a limit."""
    from bench.drift import drift_table, write_drift

    comparison = _comparison(arguments)
    found = comparison.drift()
    print(drift_table(found), write_drift(found, comparison), *found.passed, sep="\n")
    return 1 if found.passed else 0


def reassign(arguments: Sequence[str]) -> int:
    """Make an embedding's codes and tables anew for the current text, and compare (flags as for drift)."""
    from bench.drift import reassigned_table, write_reassigned

    comparison = _comparison(arguments)
    found = comparison.reassign()
    print(reassigned_table(found), *write_reassigned(found, comparison), sep="\n")
    print(f"to train with it: the same settings with assignment.corpus={comparison.current.name}")
    return 0


def _comparison(arguments: Sequence[str]) -> "Comparison":
    from bench.compose import compose_config
    from bench.drift import Comparison
    from bench.identity import prepare

    reference, others = _needed(arguments, "--reference")
    current, others = _needed(others, "--current")
    config = compose_config([other if "=" in other else f"model={other}" for other in others])
    return Comparison(prepare(config).config, reference, current)


def _needed(arguments: Sequence[str], flag: str) -> tuple[str, list[str]]:
    """Return the text file that the flag names and the other arguments; raises ConfigError where it is not set."""
    hint = f"give a text file with one passage a line, as in {flag} notes.txt"
    value, others = _option(arguments, flag, hint)
    if value is None:
        raise ConfigError(f"{flag} is not set: {hint}.")
    return value, others


def export(arguments: Sequence[str]) -> int:
    """Write a run's model to a folder that others load (RUN_ID or key=value, --to DIR; --materialise, --retrain, --onnx, --int8, --evaluate)."""
    from bench.export.command import export as export_one

    to = export_one(arguments)
    for path in sorted(to.iterdir()):
        print(f"{path.stat().st_size:14,}  {path}")
    return 0


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    verb.__name__: verb
    for verb in (run, plan, sweep, status, retry, cancel, gc, search, report, gate, tasks, fetch, rescore, submit, perf, chart, sameness, fit,
                 cost, coverage, drift, reassign, export)
}


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 0 done, 1 something failed, 2 wrong configuration, 3 broken environment, 130 interrupted."""
    set_up_logging()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m bench <verb> [key=value ...]\n")
        for name, verb in VERBS.items():
            print(f"  {name:8} {(verb.__doc__ or '').splitlines()[0]}")
        return 0 if arguments else 2
    try:
        if arguments[0] not in VERBS:
            raise ConfigError(unknown("verb", arguments[0], VERBS))
        if arguments[0] != "fetch":  # the only verb that talks to the hub: the others read what it left, on any node
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        return VERBS[arguments[0]](arguments[1:])
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command goes on from here", file=sys.stderr)
        return 130
