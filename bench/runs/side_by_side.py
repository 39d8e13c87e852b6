"""Runs of the same task and recipe trained side by side, so that they fill a GPU; each has an ordinary record."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch

from bench.errors import EnvironmentBroken, stop_behind
from bench.runs import cost
from bench.runs.evaluate import evaluated
from bench.runs.execute import check_folders, recorded
from bench.runs.identity import Prepared
from bench.runs.loading import Loaded, device_of, load, trainees_of
from bench.store import Record
from bench.training.finetune import Diverged, Outcome, finetune_together
from bench.training.precision import resolve_dtype

log = logging.getLogger("bench")


def execute_together(runs: Sequence[Prepared]) -> list[Record] | None:
    """Carry out the runs and return their records, which are written; None where they cannot train side by side.

    That is logged: a run failed to load, or the device has no room for all. Raises as `execute` does, and TimeLimit.
    """
    for run in runs:
        check_folders(run)
    device = device_of(runs[0].config)
    try:
        loaded, outcomes = _trained(runs, device)
    except EnvironmentBroken:
        raise
    except Exception as error:
        if stop := stop_behind(error):
            raise stop from error
        log.warning(
            "%s | %d runs cannot train side by side (%s): they train one after the other",
            runs[0].name,
            len(runs),
            str(error).splitlines()[0] if str(error) else type(error).__name__,
        )
        return None
    return [
        recorded(run, device, partial(_evaluated, run, part, outcome, device))
        for run, part, outcome in zip(runs, loaded, outcomes, strict=True)
    ]


def _evaluated(
    run: Prepared, loaded: Loaded, outcome: Outcome | Diverged, device: torch.device
) -> dict[str, Any]:
    """Return the record's parts of a trained run; raises Diverged."""
    if isinstance(outcome, Diverged):
        raise outcome
    model = cast(Any, loaded.model).to(device)  # alone there, as evaluation takes memory too
    try:
        return evaluated(run, loaded, outcome, device)
    finally:
        model.to("cpu")


def _trained(runs: Sequence[Prepared], device: torch.device) -> tuple[list[Loaded], list[Outcome | Diverged]]:
    config = runs[0].config
    cost.reset_peak_memory(device)
    loaded = load(runs, device)
    trainees = trainees_of(runs, loaded, device)
    outcomes = finetune_together(trainees, resolve_dtype(config.training.dtype, device))
    for part in loaded:
        cast(Any, part.model).to("cpu")
    return loaded, outcomes
