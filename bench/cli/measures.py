"""Verbs that measure without a sweep: tasks and texts, fits, speed, costs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import option
from bench.errors import BenchError, ConfigError, unknown

if TYPE_CHECKING:
    from bench.probes.drift import Comparison


def tasks(overrides: Sequence[str]) -> int:
    """Print every task's splits with the rows found and the official ones (data.root=<folder>, data.source=...)."""
    from bench.settings.compose import compose_config
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


def fit(overrides: Sequence[str]) -> int:
    """Measure how well a sweep's embeddings fit the pretrained table, without training (sweep=<name>, default budget)."""
    from bench.probes.fit import fits
    from bench.probes.fit_table import write_fit
    from bench.store import check_writable
    from bench.sweep.plan import expand, load

    named = any(override.startswith("sweep=") for override in overrides)
    expanded = expand(*load(overrides if named else ["sweep=budget", *overrides]))
    runs = [prepared for prepared, *_ in expanded.values()]
    results_dir = Path(runs[0].config.results_dir)
    check_writable(results_dir / "fit", Path(runs[0].config.cache_dir))
    for model in dict.fromkeys(run.config.model.name for run in runs):
        paths = write_fit(fits([run for run in runs if run.config.model.name == model]), results_dir / "fit")
        print("\n".join(map(str, paths)))
    return 0


def coverage(overrides: Sequence[str]) -> int:
    """Say how a text is covered by vocabulary and embedding (--corpus <file>, then key=value as for run)."""
    from bench.probes.coverage import cover, write_coverage
    from bench.runs.identity import prepare
    from bench.settings.compose import compose_config

    corpus, rest = _needed(overrides, "--corpus")
    prepared = prepare(compose_config(rest))
    found, text = cover(prepared, corpus)
    for name, value in found.facts.items():
        print(f"{name:18} {value:,.4g}")
    folder = Path(prepared.config.results_dir) / "coverage"
    print(*write_coverage(found, corpus, text, prepared, folder), sep="\n")
    return 0


def drift(arguments: Sequence[str]) -> int:
    """Compare live text with what an embedding was made for (--reference <text> --current <text> <model> key=value); 1 past a limit."""
    from bench.probes.drift import drift_table, write_drift

    comparison = _comparison(arguments)
    found = comparison.drift()
    print(drift_table(found), write_drift(found, comparison), *found.passed, sep="\n")
    return 1 if found.passed else 0


def reassign(arguments: Sequence[str]) -> int:
    """Make an embedding's codes and tables anew for the current text, and compare (flags as for drift)."""
    from bench.probes.drift import reassigned_table, write_reassigned

    comparison = _comparison(arguments)
    found = comparison.reassign()
    print(reassigned_table(found), *write_reassigned(found, comparison), sep="\n")
    print(f"to train with it: the same settings with assignment.corpus={comparison.current.name}")
    return 0


def _comparison(arguments: Sequence[str]) -> "Comparison":
    from bench.probes.drift import Comparison
    from bench.runs.identity import prepare
    from bench.settings.compose import compose_config

    reference, others = _needed(arguments, "--reference")
    current, others = _needed(others, "--current")
    config = compose_config([other if "=" in other else f"model={other}" for other in others])
    return Comparison(prepare(config).config, reference, current)


def _needed(arguments: Sequence[str], flag: str) -> tuple[str, list[str]]:
    """Return the text file that the flag names and the other arguments; raises ConfigError where it is not set."""
    hint = f"give a text file with one passage a line, as in {flag} notes.txt"
    value, others = option(arguments, flag, hint)
    if value is None:
        raise ConfigError(f"{flag} is not set: {hint}.")
    return value, others


def cost(arguments: Sequence[str]) -> int:
    """Measure latency, memory and cold start of a sweep's embeddings beside dense, into records too (sweep=<name>, device=auto|cpu|cuda)."""
    from bench.probes.latency import into_records, profile
    from bench.probes.latency_table import write_cost
    from bench.runs.execute import pick_device
    from bench.store import check_writable
    from bench.sweep.plan import expand, load
    from bench.sweep.select import parse

    flags, overrides = parse(arguments)
    named = any(override.startswith("sweep=") for override in overrides)
    runs = [
        run for run, *_ in expand(*load(overrides if named else ["sweep=demo", *overrides]), flags).values()
    ]
    results_dir = Path(runs[0].config.results_dir)
    check_writable(results_dir / "cost", Path(runs[0].config.cache_dir))
    for model in dict.fromkeys(run.config.model.name for run in runs):
        measured = profile(
            [run for run in runs if run.config.model.name == model], pick_device(runs[0].config.device)
        )
        paths = write_cost(measured, results_dir / "cost")
        print(
            paths[1].read_text(),
            *paths,
            f"written into {into_records(measured, results_dir)} records",
            sep="\n",
        )
    return 0


def perf(overrides: Sequence[str]) -> int:
    """Measure the Trainer and our engines side by side (perf.backbones=[...], perf.sides=[...], device=auto|cpu|cuda)."""
    from bench.perf.measure import measure
    from bench.runs.execute import pick_device
    from bench.settings.compose import compose_config
    from bench.store import check_writable

    config = compose_config(overrides)
    check_writable(Path(config.results_dir) / "perf")
    path = measure(config, pick_device(config.device))
    print(path.with_suffix(".md").read_text())
    report = json.loads(path.read_text())
    return (
        1
        if any(part and part["error"] for part in (report["startup"], *report["layers"], *report["rows"]))
        else 0
    )


def chart(overrides: Sequence[str]) -> int:
    """Draw the charts of what `perf` measured (results_dir=<folder>)."""
    from bench.perf.chart import draw
    from bench.settings.compose import compose_config

    folder = Path(compose_config(overrides).results_dir) / "perf"
    measured = sorted(folder.glob("*.json"))
    if not measured:
        raise BenchError(f"No measurements in {folder}: run `make perf` first, or set results_dir.")
    for path in measured:
        for file in draw(json.loads(path.read_text()), path):
            print(file)
    return 0


def sameness(overrides: Sequence[str]) -> int:
    """Train MRPC, RTE and STS-B with every engine on a GPU and print the differences from the eager one (data.root=<folder>)."""
    from bench.perf.equivalence import compare

    compared = compare(overrides)
    for one in compared:
        mean, low, high = one.difference.mean, one.difference.low, one.difference.high
        interval = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"
        print(
            f"{one.task} {one.metric}: eager {one.eager}, {one.engine} {one.other}; mean difference {mean:+.4f}{interval}, "
            f"standard deviation over seeds {one.spread:.4f}: {'same' if one.same else 'DIFFERENT'}"
        )
    return 0 if all(one.same for one in compared) else 1
