"""The verb that lists data."""

from collections.abc import Sequence

from bench.settings.compose import compose_config
from bench.tasks.inventory import inventory
from bench.tasks.specs import task_names


def tasks(overrides: Sequence[str]) -> int:
    """List the splits of every task: rows that are there beside the official number."""
    print(inventory(compose_config(overrides).data, task_names()).to_string(index=False, justify="left"))
    return 0
