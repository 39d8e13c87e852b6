"""The verb that pretrains without a task."""

from collections.abc import Sequence
from typing import Any

from bench.runs.identity import prepare
from bench.runs.pretrain import pretrain as pretrained
from bench.settings.compose import compose_config
from bench.sweep.plan import expand, load
from bench.sweep.select import Selection


def pretrain(overrides: Sequence[str], **selection: Any) -> int:
    """Pretrain the model of a configuration, or all those of a sweep, unless the cache holds them; return 1 if one failed."""
    if any(override.startswith("sweep=") for override in overrides):
        runs = [declared.run for declared in expand(*load(overrides), Selection(**selection)).values()]
    else:
        runs = [prepare(compose_config(overrides))]
    statuses = []
    for path, status in pretrained(runs):
        print(path, "" if status == "ok" else f"({status})")
        statuses.append(status)
    return 0 if set(statuses) == {"ok"} else 1
