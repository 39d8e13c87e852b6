"""The quality gate of a deployment: every declared limit against what was measured. What cannot be checked is broken."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from bench.config import RunConfig
from bench.errors import ConfigError, unknown
from bench.report.decision import no_answer, rank, subject
from bench.report.domain import Covered
from bench.report.frame import headline_runs
from bench.report.summary import Cell, Column, Row, Section

COVERAGE = {"known": "unknown_rate", "well_fitted": "badly_fitted_rate"}  # a share that is covered: 1 - the fact of `bench coverage`
BATCHES = ("batch1", "batch32")


class Check(NamedTuple):
    """One limit: what it is about, what was declared, what was measured."""

    name: str
    limit: str
    measured: str
    held: bool


class Target(NamedTuple):
    """The configuration to be deployed: its line in every section of its model."""

    label: str
    lines: list[tuple[Section, Row]]
    runs: pd.DataFrame  # finished


def checks(frame: pd.DataFrame, parts: Sequence[Section], covered: Sequence[Covered], config: RunConfig) -> list[Check]:
    """Return a check for each limit of config.gate, the configuration itself first.

    Raises ConfigError for a gate without a limit, unknown names of limits and a configuration of several models.
    """
    gate = config.gate
    for group, given, known in (("latency_ms", gate.latency_ms, BATCHES), *(("coverage", limits, COVERAGE) for limits in gate.coverage.values())):
        for key in given:
            if key not in known:
                raise ConfigError(unknown(f"limit of gate.{group}", key, known))
    if not (gate.loss or gate.coverage or gate.latency_ms or gate.embedding_bytes is not None or gate.total_bytes is not None):
        raise ConfigError(f"gate={gate.name} declares no limit: set one in conf/gate/{gate.name}.yaml.")
    target, first = _target(frame, parts, config)
    return [first, *_losses(target, config), *_sizes(target, config), *_latencies(target, config), *_coverages(target, covered, config)]


def _target(frame: pd.DataFrame, parts: Sequence[Section], config: RunConfig) -> tuple[Target, Check]:
    """Return what is checked, and whether it is there at all."""
    label, model, limit = config.gate.configuration, config.gate.model, "finished runs"
    if label is None:
        limit = f"recommended: {config.report.tolerated_loss:g} points at most"
        about = subject(parts, config.report)
        best = None if no_answer(about) else rank(about.options, about.matter, config.report.tolerated_loss)[0]
        label, model = (best.option.row.label, about.section.model) if best and best.holds else (None, None)
    lines = [(part, row) for part in parts for row in part.rows if row.label == label and model in (None, part.model)]
    models = sorted({part.model for part, _ in lines})
    if len(models) > 1:
        raise ConfigError(f"gate.configuration ({label}) is one of several models: set gate.model to one of {', '.join(models)}.")
    done = headline_runs(frame)
    runs = done[done.config_id.isin([row.config_id for _, row in lines]) & done.model.isin(models)]
    measured = "none" if label is None else f"{label}: {len(runs)} finished runs"
    return Target(label or "none", lines, runs), Check("configuration", limit, measured, len(runs) > 0)


def _losses(target: Target, config: RunConfig) -> Iterator[Check]:
    for task, limit in config.gate.loss.items():
        cells = [(column, part.cells[row.config_id, column.name]) for part, row in target.lines for column in part.columns
                 if column.task == task and column is not part.mean]
        if not cells:
            yield Check(f"loss of {task}", f"{limit:g} points at most", "no records", False)
        for column, cell in cells:
            yield _loss(column, cell, limit)


def _loss(column: Column, cell: Cell, limit: float) -> Check:
    name = f"loss of {column.name}"
    if cell.change.mean is None:  # dense is compared with nothing: it loses nothing
        why = cell.missing or cell.unpaired
        return Check(name, f"{limit:g} points at most", why or "dense itself", not why and limit >= 0)
    loss = round(-cell.change.mean if column.higher_is_better else cell.change.mean, 6)
    return Check(name, f"{limit:g} points at most", f"{loss:.2f} points, paired seeds: {cell.change.n}", loss <= limit)


def _sizes(target: Target, config: RunConfig) -> Iterator[Check]:
    for key in ("embedding_bytes", "total_bytes"):
        if (limit := getattr(config.gate, key)) is not None:
            largest = target.runs[key].max()
            known = bool(pd.notna(largest))
            yield Check(key, f"{limit:,} at most", f"{int(largest):,}" if known else "no records", known and largest <= limit)


def _latencies(target: Target, config: RunConfig) -> Iterator[Check]:
    for batch, limit in config.gate.latency_ms.items():
        times = pd.to_numeric(target.runs[f"latency_{batch}_ms"])
        slowest = times.groupby(target.runs.device).median().max()
        known = bool(pd.notna(slowest))
        yield Check(f"latency_ms.{batch}", f"{limit:g} ms at most", f"{slowest:.2f} ms" if known else "not measured", known and slowest <= limit)


def _coverages(target: Target, covered: Sequence[Covered], config: RunConfig) -> Iterator[Check]:
    for corpus, limits in config.gate.coverage.items():
        own = [one for one in covered if one.corpus == corpus and one.embedding_id in set(target.runs.embedding_id)]
        for key, limit in limits.items():
            share = min((1 - one.facts[COVERAGE[key]] for one in own), default=None)
            measured = "not measured with this configuration" if share is None else f"{share:.4f}"
            yield Check(f"coverage.{corpus}.{key}", f"{limit:g} at least", measured, share is not None and share >= limit)


def said(found: Sequence[Check]) -> list[str]:
    """Return a line for each check, and the count of broken ones."""
    lines = [f"{'held' if one.held else 'BROKEN':7} {one.name}: limit {one.limit}; measured {one.measured}" for one in found]
    return [*lines, f"{sum(not one.held for one in found)} of {len(found)} limits broken"]
