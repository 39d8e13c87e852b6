"""The quality gate of a deployment: every declared limit against what was measured. What cannot be checked is broken."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from bench.errors import ConfigError, unknown
from bench.report.decision import no_answer, rank, subject
from bench.report.domain import Covered
from bench.report.frame import headline_runs
from bench.report.latency import ratio
from bench.report.section import Cell, Column, Row, Section
from bench.settings.schema import GateConfig, RunConfig
from bench.store import LatencyPart, device_key

COVERAGE = {
    "known": "unknown_rate",
    "well_fitted": "badly_fitted_rate",
}  # a share that is covered: 1 - the fact of `bench coverage`


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


def checks(
    frame: pd.DataFrame, parts: Sequence[Section], covered: Sequence[Covered], config: RunConfig
) -> list[Check]:
    """Return a check for each limit of config.gate, the configuration itself first.

    Raises ConfigError for a gate without a limit, unknown names of limits and a configuration of several models.
    """
    gate = config.gate
    for key in (key for limits in gate.coverage.values() for key in limits if key not in COVERAGE):
        raise ConfigError(unknown("limit of gate.coverage", key, COVERAGE))
    for key in (key for key in gate.latency_ms if not re.fullmatch(r"batch[1-9]\d*", key)):
        raise ConfigError(
            f"Unknown limit of gate.latency_ms '{key}': name a batch by its rows, such as batch1 or batch32."
        )
    if not (
        gate.loss
        or gate.coverage
        or gate.latency_ms
        or gate.embedding_bytes is not None
        or gate.total_bytes is not None
    ):
        raise ConfigError(f"gate={gate.name} declares no limit: set one in conf/gate/{gate.name}.yaml.")
    target, first = _target(frame, parts, config)
    return [
        first,
        *_losses(target, config),
        *_sizes(target, config),
        *_latencies(target, config),
        *_coverages(target, covered, config),
    ]


def _target(frame: pd.DataFrame, parts: Sequence[Section], config: RunConfig) -> tuple[Target, Check]:
    """Return what is checked, and whether it is there at all."""
    label, model, limit, recommended = config.gate.configuration, config.gate.model, "finished runs", None
    if label is None:
        limit = f"recommended: {config.report.tolerated_loss:g} points at most"
        about = subject(parts, config.report)
        best = (
            None if no_answer(about) else rank(about.options, about.matter, config.report.tolerated_loss)[0]
        )
        if best and best.holds:
            label, model, recommended = best.option.row.label, about.section.model, best.option.row.config_id
    lines = [
        (part, row)
        for part in parts
        for row in part.rows
        if row.label == label and model in (None, part.model) and recommended in (None, row.config_id)
    ]
    models = sorted({part.model for part, _ in lines})
    if len(models) > 1:
        raise ConfigError(
            f"gate.configuration ({label}) is one of several models: set gate.model to one of {', '.join(models)}."
        )
    done = headline_runs(frame)
    runs = done[done.config_id.isin([row.config_id for _, row in lines]) & done.model.isin(models)]
    measured = "none" if label is None else f"{label}: {len(runs)} finished runs"
    return Target(label or "none", lines, runs), Check("configuration", limit, measured, len(runs) > 0)


def _losses(target: Target, config: RunConfig) -> Iterator[Check]:
    for task, limit in config.gate.loss.items():
        cells = [
            (column, part.cells[row.config_id, column.name])
            for part, row in target.lines
            for column in part.tasks
            if column.task == task
        ]
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
    return Check(
        name, f"{limit:g} points at most", f"{loss:.2f} points, paired seeds: {cell.change.n}", loss <= limit
    )


def _sizes(target: Target, config: RunConfig) -> Iterator[Check]:
    for key in ("embedding_bytes", "total_bytes"):
        if (limit := getattr(config.gate, key)) is not None:
            largest = target.runs[key].max()
            known = bool(pd.notna(largest))
            yield Check(
                key,
                f"{limit:,} at most",
                f"{int(largest):,}" if known else "no records",
                known and largest <= limit,
            )


def _latencies(target: Target, config: RunConfig) -> Iterator[Check]:
    for key, limit in config.gate.latency_ms.items():
        batch = int(key.removeprefix("batch"))
        time, how = _profiled(target, batch, config.gate) or _noted(target, batch, config.gate) or (None, "")
        measured = "not measured: run `bench cost`" if time is None else f"{time:.2f} ms ({how})"
        yield Check(
            f"latency_ms.{key}", f"{limit:g} ms at most", measured, time is not None and time <= limit
        )


def _profiled(target: Target, batch: int, gate: GateConfig) -> tuple[float, str] | None:
    """Return the median of `bench cost` in ms, of the slowest device, and how it was measured; None where it was not."""
    found: list[tuple[str, LatencyPart]] = []
    for profiles in target.runs.profiles.dropna():
        for device, profile in profiles.items():
            cells = [
                cell
                for cell in profile["latency"]
                if cell["batch"] == batch and gate.tokens in (None, cell["tokens"])
            ]
            if cells and gate.device in (None, device):
                found.append((device, max(cells, key=lambda cell: cell["tokens"])))
    if not found:
        return None
    device, cell = max(found, key=lambda pair: pair[1]["p50_ms"])
    return (
        cell["p50_ms"],
        f"`bench cost` on {device}, {batch} × {cell['tokens']} tokens, {cell['rounds']} rounds; ratio to dense {ratio(cell)}",
    )


def _noted(target: Target, batch: int, gate: GateConfig) -> tuple[float, str] | None:
    """Return the same of what each run noted beside its training, on texts whose tokens nobody counted."""
    if f"latency_batch{batch}_ms" not in target.runs or gate.tokens is not None:
        return None
    runs = target.runs.dropna(subset=["device"])
    runs = runs[runs.device.map(device_key) == gate.device] if gate.device else runs
    times = pd.to_numeric(runs[f"latency_batch{batch}_ms"]).groupby(runs.device).median().dropna()
    return (
        (float(times.max()), f"noted by the runs on {times.idxmax()}, without `bench cost`")
        if len(times)
        else None
    )


def _coverages(target: Target, covered: Sequence[Covered], config: RunConfig) -> Iterator[Check]:
    for corpus, limits in config.gate.coverage.items():
        own = [
            one
            for one in covered
            if one.corpus == corpus and one.embedding_id in set(target.runs.embedding_id)
        ]
        for key, limit in limits.items():
            shares = {1 - one.facts[COVERAGE[key]]: one.text for one in own}
            share = min(shares, default=None)  # every text of that name must be covered
            measured = "not measured with this configuration" if share is None else f"{share:.4f}"
            if len(own) > 1 and share is not None:
                measured += f" on {shares[share]}, the worst of {len(own)} texts"
            yield Check(
                f"coverage.{corpus}.{key}",
                f"{limit:g} at least",
                measured,
                share is not None and share >= limit,
            )


def said(found: Sequence[Check]) -> list[str]:
    """Return a line for each check, and the count of broken ones."""
    lines = [
        f"{'held' if one.held else 'BROKEN':7} {one.name}: limit {one.limit}; measured {one.measured}"
        for one in found
    ]
    return [*lines, f"{sum(not one.held for one in found)} of {len(found)} limits broken"]
