"""The quality gate of a deployment: each declared limit against its measurement. A limit that cannot be checked is broken."""

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bench.errors import ConfigError, unknown
from bench.report.breakdown import breakdown_table
from bench.report.decision import no_answer, rank, subject
from bench.report.latency import slowest
from bench.report.runs import headline_runs
from bench.report.scores import sections
from bench.settings.schema import RunConfig
from bench.store import Covered

# A limit's measurement is 1 - this fact of `bench coverage`.
COVERAGE = {"known": "unknown_rate", "well_fitted": "badly_fitted_rate"}


class Check(NamedTuple):
    """A limit: its name, what was declared, what was measured."""

    name: str
    limit: str
    measured: str
    held: bool


def checks(
    frame: pd.DataFrame, table: pd.DataFrame, covered: Sequence[Covered], config: RunConfig
) -> list[Check]:
    """Return a check for each limit of config.gate, after a check that the configuration has finished runs.

    `frame` holds the runs, `table` their scores. Raises ConfigError for a gate without a limit, for an unknown name of a limit and
    for a configuration of several models.
    """
    # Refuse a gate that cannot be checked.
    gate = config.gate
    for key in (key for limits in gate.coverage.values() for key in limits if key not in COVERAGE):
        raise ConfigError(unknown("limit of gate.coverage", key, COVERAGE))
    for key in (key for key in gate.latency_ms if not re.fullmatch(r"batch[1-9]\d*", key)):
        raise ConfigError(
            f"Unknown limit of gate.latency_ms '{key}': name a batch by its rows, such as batch1 or batch32."
        )
    sizes = (gate.embedding_bytes, gate.total_bytes)
    if not (gate.loss or gate.coverage or gate.latency_ms or any(size is not None for size in sizes)):
        raise ConfigError(f"gate={gate.name} declares no limit: set one in conf/gate/{gate.name}.yaml.")

    # Check each limit.
    lines, runs, first = _target(frame, table, config)
    return [
        first,
        *_losses(lines, config),
        *_sizes(runs, config),
        *_latencies(runs, config),
        *_coverages(runs, covered, config),
    ]


def _target(
    frame: pd.DataFrame, table: pd.DataFrame, config: RunConfig
) -> tuple[pd.DataFrame, pd.DataFrame, Check]:
    """Return the scores and the finished runs of the configuration to be deployed, and the check that it has any."""
    label, limit, lines = config.gate.configuration, "finished runs", table
    if label is None:
        limit = f"recommended: {config.report.tolerated_loss:g} points at most"
        about = subject(table, config.report, sections(breakdown_table(frame, config.report.tolerated_loss)))
        ranked = [] if no_answer(about) else rank(about.options, about.matter, config.report.tolerated_loss)
        if ranked and ranked[0].holds:
            row = about.options[ranked[0].place]["row"]
            label, lines = row["configuration"], table[table.config_id == row["config_id"]]
            lines = lines[lines.model == row["model"]]
    elif config.gate.model:
        lines = table[table.model == config.gate.model]
    lines = lines[lines.configuration == label]
    models = sorted(set(lines.model))
    if len(models) > 1:
        raise ConfigError(
            f"gate.configuration ({label}) belongs to several models: set gate.model to {' or '.join(models)}."
        )
    done = headline_runs(frame)
    runs = done[done.config_id.isin(lines.config_id) & done.model.isin(models)]
    measured = "none" if label is None else f"{label}: {len(runs)} finished runs"
    near = difflib.get_close_matches(label or "", set(table.configuration), n=1)
    measured += f"; did you mean '{near[0]}'?" if lines.empty and near else ""
    return lines, runs, Check("configuration", limit, measured, len(runs) > 0)


def _losses(lines: pd.DataFrame, config: RunConfig) -> Iterator[Check]:
    for task, limit in config.gate.loss.items():
        on_task = lines[(lines.task == task) & ~lines.is_mean].to_dict("records")
        if not on_task:
            yield Check(f"loss of {task}", f"{limit:g} points at most", "no records", False)
        for line in on_task:
            yield Check(f"loss of {line['column']}", f"{limit:g} points at most", *_loss(line, limit))


def _loss(line: dict[Any, Any], limit: float) -> tuple[str, bool]:
    """Return the loss in words, and whether it is within the limit. Dense itself loses nothing."""
    if pd.isna(line["difference_to_dense"]):
        why = line["no_score"] or line["no_difference"]
        return why or "dense itself", not why and limit >= 0
    loss = round(line["difference_to_dense"] * (-1 if line["higher_is_better"] else 1), 6)
    return f"{loss:.2f} points, paired seeds: {line['paired_seeds']}", loss <= limit


def _sizes(runs: pd.DataFrame, config: RunConfig) -> Iterator[Check]:
    for key in ("embedding_bytes", "total_bytes"):
        if (limit := getattr(config.gate, key)) is not None:
            largest = runs[f"size.{key}"].max()
            measured = "no records" if pd.isna(largest) else f"{int(largest):,}"
            yield Check(key, f"{limit:,} at most", measured, bool(largest <= limit))


def _latencies(runs: pd.DataFrame, config: RunConfig) -> Iterator[Check]:
    for key, limit in config.gate.latency_ms.items():
        time, how = slowest(runs, int(key.removeprefix("batch")), config.gate) or (math.inf, "")
        measured = f"{time:.2f} ms ({how})" if how else "not measured: run `bench latency`"
        yield Check(f"latency_ms.{key}", f"{limit:g} ms at most", measured, bool(how) and time <= limit)


def _coverages(runs: pd.DataFrame, covered: Sequence[Covered], config: RunConfig) -> Iterator[Check]:
    known = set(runs.embedding_id)
    for corpus, limits in config.gate.coverage.items():
        texts = [text for text in covered if text.corpus == corpus and text.embedding_id in known]
        for key, limit in limits.items():
            # Every text of that name must be covered.
            shares = {1 - text.facts[COVERAGE[key]]: text.text for text in texts}
            share = min(shares, default=-math.inf)
            measured = f"{share:.4f}" if texts else "not measured with this configuration"
            if len(texts) > 1:
                measured += f" on {shares[share]}, the worst of {len(texts)} texts"
            yield Check(
                f"coverage.{corpus}.{key}", f"{limit:g} at least", measured, bool(texts) and share >= limit
            )


def lines(results: Sequence[Check]) -> list[str]:
    """Return a line for each check, and the count of broken limits."""
    shown = [
        f"{'held' if check.held else 'BROKEN':7} {check.name}: limit {check.limit}; measured {check.measured}"
        for check in results
    ]
    return [*shown, f"{sum(not check.held for check in results)} of {len(results)} limits broken"]
