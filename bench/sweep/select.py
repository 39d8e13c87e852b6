"""Which runs of a sweep are meant: --limit, --only and --seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigError, unknown
from bench.settings.choices import Choice, others
from bench.settings.compose import text_of
from bench.settings.schema import RunConfig

if TYPE_CHECKING:
    from bench.sweep.plan import Declared


@dataclass(frozen=True)
class Selection:
    """The runs that the flags of plan, sweep, status and retry select."""

    limit: int | None = None  # the first runs in the order of the sweep's file
    # "key=value[,value]": runs whose configuration has one of these values; "part=name[,name]": runs of these parts of the file
    only: Sequence[str] = ()
    seeds: int | None = None  # the seeds 0..n-1 instead of the file's

    def parts(self) -> list[str]:
        """Return the names of the parts that are meant; none stands for all."""
        named = [text.removeprefix("part=") for text in self.only if text.startswith("part=")]
        return [name for names in named for name in names.split(",")]

    def choose(self, runs: Sequence["Declared"]) -> list["Declared"]:
        """Return the selected of these runs, which are of the parts that are meant; raises ConfigError if there are none.

        A value counts as the sweep's file has it, too: of a budget, a run's configuration has the rows.
        """
        conditions = [text.partition("=")[::2] for text in self.only if not text.startswith("part=")]
        chosen = [
            run
            for run in runs
            if all(
                (value := value_of(run.run.config, key)) is not None
                and {value, _stated(run.overrides, key)}
                & {values, *values.split(",")}  # a value may hold a comma itself
                for key, values in conditions
            )
        ]
        if not chosen:
            raise ConfigError(
                f"--only {' '.join(self.only)} matches none of the sweep's {len(runs)} runs: "
                "`python -m bench plan` lists them."
            )
        return chosen[: self.limit]


def _stated(overrides: Sequence[str], key: str) -> str | None:
    """Return the value that the last of the overrides gives the key."""
    values = [
        value for name, _, value in (text.partition("=") for text in overrides) if name.lstrip("?+") == key
    ]
    return values[-1] if values else None


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
            group = key.rpartition(".")[0]
            known = [f"{group}.{name}" if group else name for name in names]
            raise ConfigError(unknown("key in --only", key, known))
        node = getattr(node, part)
    node = node.name if is_dataclass(node) and hasattr(node, "name") else node
    return text_of(node)
