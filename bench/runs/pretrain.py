"""Pretraining without a task: the models that runs would start from, and a record of each."""

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import store
from bench.errors import ConfigError, EnvironmentBroken
from bench.runs.execute import status_of
from bench.runs.identity import Prepared
from bench.runs.loading import device_of, pretraining_of
from bench.runs.provenance import provenance
from bench.settings.pretrainings import MaskedLmPretrainingConfig
from bench.training import processes
from bench.training.pretraining.stage import DECIDES, Pretraining, pretrain_together

log = logging.getLogger("bench")


def pretrain(runs: Sequence[Prepared]) -> Iterator[tuple[Path, str]]:
    """Pretrain the different models that the runs start from, and yield path and status of each one's record.

    `launcher.runs_at_once` of one text and recipe train side by side. A failure becomes a record, too. Raises ConfigError
    where no run is pretrained, and what `execute` raises.
    """
    wanted = [run for run in runs if isinstance(run.config.pretraining, MaskedLmPretrainingConfig)]
    if not wanted:
        raise ConfigError(
            "pretraining (none) trains nothing: add pretraining=masked_lm, or name a sweep that has it."
        )
    config, device = wanted[0].config, device_of(wanted[0].config)
    store.check_writable(Path(config.results_dir) / "pretraining", Path(config.cache_dir))
    stages = {stage.key: stage for stage in (pretraining_of(run, device) for run in wanted)}

    # Those that can train side by side, as many at once as the launcher allows.
    groups: dict[str, list[Pretraining]] = {}
    for stage in stages.values():
        groups.setdefault(stage.shared, []).append(stage)
    for group in groups.values():
        for at in range(0, len(group), config.launcher.runs_at_once):
            yield from _recorded(group[at : at + config.launcher.runs_at_once])


def _recorded(stages: Sequence[Pretraining]) -> Iterator[tuple[Path, str]]:
    """Pretrain side by side, or after a failure one after the other, and yield path and status of each record."""
    try:
        parts: list[Any] = list(pretrain_together(stages))
    except EnvironmentBroken:
        raise
    except Exception as error:
        if len(stages) > 1:
            log.warning(
                "%d models cannot be pretrained side by side (%s)", len(stages), str(error).split("\n")[0]
            )
            for stage in stages:
                yield from _recorded([stage])
            return
        log.error("%s | %s", stages[0].name, error)
        parts = [error]
    for stage, part in zip(stages, parts, strict=True):
        yield _write(stage, part)


def _write(stage: Pretraining, part: dict[str, Any] | Exception) -> tuple[Path, str]:
    """Write the record of a pretraining with its facts, or with its error; return the path and the status."""
    failed = isinstance(part, Exception)
    status = status_of(part) if isinstance(part, Exception) else "ok"
    record = {
        "key": stage.key,
        "status": status,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": {name: stage.canonical.get(name) for name in DECIDES},
        "pretraining": None if failed else part,
        "provenance": provenance(stage.device),
        "error": {"type": type(part).__name__, "message": str(part)} if failed else None,
    }
    model, _, method, _ = stage.name.split("/")
    path = Path(stage.config.results_dir) / "pretraining" / model / f"{method}-{stage.key[:12]}.json"
    if processes.IS_MAIN:
        store.write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return path, status
