"""Verbs that measure embeddings without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import ConfigError
from bench.probes.coverage import cover, write_coverage
from bench.probes.drift import Comparison, drift_table, reassigned_table, write_drift, write_reassigned
from bench.probes.fit import fits
from bench.probes.fit_table import write_fit
from bench.probes.latency import profile
from bench.probes.latency_table import write_cost
from bench.runs.identity import Prepared, prepare
from bench.runs.loading import pick_device
from bench.settings.compose import compose_config
from bench.store import check_writable
from bench.sweep.plan import expand, load
from bench.sweep.select import Selection
from bench.text import amount


def fit(overrides: Sequence[str]) -> int:
    """Measure how well a sweep's embeddings fit the pretrained table."""
    models, folder = _by_model(overrides, "budget", "fit")
    for runs in models:
        print(*write_fit(fits(runs), folder), sep="\n")
    return 0


def latency(overrides: Sequence[str], **selection: Any) -> int:
    """Measure latency, memory and cold start of a sweep's embeddings."""
    models, folder = _by_model(overrides, "demo", "latency", Selection(**selection))
    for runs in models:
        measured = profile(runs, pick_device(runs[0].config.device))
        paths = write_cost(measured, folder)
        print(paths[1].read_text(), *paths, "`make report` shows it beside the runs", sep="\n")
    return 0


def _by_model(
    overrides: Sequence[str], default: str, folder: str, selection: Selection | None = None
) -> tuple[list[list[Prepared]], Path]:
    """Return a sweep's runs in a list for each model, and the folder of the results folder to write to."""
    named = any(override.startswith("sweep=") for override in overrides)
    sweep, others = load(overrides if named else [f"sweep={default}", *overrides])
    runs = [declared.run for declared in expand(sweep, others, selection).values()]
    config = runs[0].config
    target = Path(config.results_dir) / folder
    check_writable(target, Path(config.cache_dir))
    models = dict.fromkeys(run.config.model.name for run in runs)
    return [[run for run in runs if run.config.model.name == model] for model in models], target


def coverage(overrides: Sequence[str], corpus: str) -> int:
    """Measure how vocabulary and embedding cover a text."""
    prepared = prepare(compose_config(overrides))
    folder = Path(prepared.config.results_dir) / "coverage"
    check_writable(folder, Path(prepared.config.cache_dir))
    measured, text = cover(prepared, corpus)
    for name, value in measured.facts.items():
        print(f"{name:18} {amount(value)}")
    print(*write_coverage(measured, corpus, text, prepared, folder), sep="\n")
    return 0


def drift(words: Sequence[str], reference: str, current: str) -> int:
    """Compare live text with the text that an embedding was made for; return 1 past a limit."""
    comparison = _comparison(words, reference, current)
    result = comparison.drift()
    print(drift_table(result), write_drift(result, comparison), *result.exceeded, sep="\n")
    return 1 if result.exceeded else 0


def reassign(words: Sequence[str], reference: str, current: str) -> int:
    """Make an embedding's codes and tables for the live text, and compare them with the former ones."""
    comparison = _comparison(words, reference, current)
    result = comparison.reassign()
    print(reassigned_table(result), *write_reassigned(result, comparison), sep="\n")
    before, after = (facts["weighted_error"] for facts in result.facts)
    if after < before:
        print(f"to train with it: the same settings with assignment.corpus={comparison.current.name}")
    else:
        print(
            f"it fits the current text no better (weighted_error {amount(after)}, before {amount(before)}): keep the former one, "
            "or give more text"
        )
    return 0


def _comparison(words: Sequence[str], reference: str, current: str) -> Comparison:
    if len(models := [word for word in words if "=" not in word]) > 1:
        raise ConfigError(f"{' and '.join(models)} are {len(models)} models: name one.")
    config = compose_config([word if "=" in word else f"model={word}" for word in words])
    check_writable(Path(config.results_dir), Path(config.cache_dir))
    return Comparison(prepare(config).config, reference, current)
