"""Which runs of a sweep are meant: --limit, --only and --seeds."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from bench.errors import ConfigError, unknown
from bench.runs.identity import Prepared
from bench.settings.choices import Choice, others
from bench.settings.schema import RunConfig


@dataclass(frozen=True)
class Selection:
    """What the flags of plan, sweep, status, retry and cancel say."""

    limit: int | None = None  # the first runs in the order of the sweep's file
    only: tuple[str, ...] = ()  # "key=value[,value]": runs whose configuration has one of these values
    seeds: int | None = None  # the seeds 0..n-1 instead of the file's
    wait: bool = False  # slurm: stay until the last job has ended

    def choose(self, runs: Sequence[Prepared]) -> list[Prepared]:
        """Return the runs that are meant; raises ConfigError if there are none."""
        wanted = [  # a value may hold a comma itself
            (key, {values, *values.split(",")})
            for key, _, values in (text.partition("=") for text in self.only)
        ]
        chosen = [run for run in runs if all(value_of(run.config, key) in values for key, values in wanted)]
        if not chosen:
            raise ConfigError(
                f"--only {' '.join(self.only)} matches none of the sweep's {len(runs)} runs: "
                "`python -m bench plan` lists them."
            )
        return chosen[: self.limit]


def parse(arguments: Sequence[str]) -> tuple[Selection, list[str]]:
    """Return the flags among the arguments and the overrides; raises ConfigError for a flag or a value that is none."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--wait", action="store_true")
    try:
        flags, others = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}.") from error
    for other in others:
        if other.startswith("-"):
            raise ConfigError(unknown("flag", other, ("--limit", "--only", "--seeds", "--wait")))
    for name in ("limit", "seeds"):
        if (value := getattr(flags, name)) is not None and value < 1:
            raise ConfigError(f"--{name} ({value}) must be 1 or greater.")
    for text in flags.only:
        if "=" not in text:
            raise ConfigError(f"--only ({text}) must be key=value, such as task=mrpc.")
    return Selection(flags.limit, tuple(flags.only), flags.seeds, flags.wait), others


def value_of(config: RunConfig, key: str) -> str | None:
    """Return a configuration's value as text; of a group (task, model, ...) its name.

    None where only other methods, recoveries or launchers have the key. Raises ConfigError for an unknown key.
    """
    node: Any = config
    for part in key.split("."):
        names = [f.name for f in fields(node)] if is_dataclass(node) else []
        if isinstance(node, Choice) and part in others(node):
            return None
        if part not in names:
            raise ConfigError(
                unknown(
                    "key in --only",
                    key,
                    [key.rpartition(".")[0] + "." * ("." in key) + name for name in names],
                )
            )
        node = getattr(node, part)
    node = node.name if is_dataclass(node) and hasattr(node, "name") else node
    return "null" if node is None else str(node).lower() if isinstance(node, bool) else str(node)
