"""The verb that lists data."""

from collections.abc import Sequence

from bench.settings.compose import compose_config
from bench.tasks.inventory import inventory
from bench.tasks.specs import task_names

COUNTS = ["rows", "official_rows"]  # the columns of numbers, which end below each other


def tasks(overrides: Sequence[str]) -> int:
    """List the splits of every task: rows that are there beside the official number."""
    table = inventory(compose_config(overrides).data, task_names())
    widths = {name: max(len(name), *table[name].str.len()) for name in table.columns.drop(COUNTS)}
    words = {name: table[name].str.ljust(width) for name, width in widths.items()}
    heads = {name: name.ljust(width) for name, width in widths.items()}
    print(table.assign(**words).rename(columns=heads).to_string(index=False))
    return 0
