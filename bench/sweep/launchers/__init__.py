"""Launchers: who carries out a sweep, on this machine or on a cluster.

`launcher=<name>` chooses `LAUNCHER` of bench/sweep/launchers/<name>; its keys are a class in bench/settings/launchers.py.
Nothing else in the program knows a launcher's name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from bench.settings.choices import CHOICES

if TYPE_CHECKING:
    from bench.sweep.plan import Item, Plan


@dataclass(frozen=True)
class Job:
    """A job in a cluster's queue."""

    id: str
    state: str
    reason: str  # why it waits, or where it runs


class Ending(NamedTuple):
    """How the jobs of a launcher ended."""

    words: list[str]  # a line for each job that left runs without a record
    retryable: bool  # those runs may succeed when they are started again


class Launcher(ABC):
    """Carries out the runs of one plan. A subclass needs only `submit`; with a queue it is a QueuedLauncher."""

    detached: ClassVar[bool] = False  # `submit` returns at once, and the jobs outlive this process

    def __init__(self, plan: "Plan") -> None:
        self.plan = plan

    @staticmethod  # noqa: B027 - many launchers have nothing to check
    def check(config: Any) -> None:
        """Raise ConfigError for values of `launcher.*` that the launcher cannot use."""

    @classmethod
    def busy(cls, results_dir: Path) -> bool:
        """Return whether a job of any sweep of this results folder waits or runs. True if the queue does not answer."""
        return False

    @abstractmethod
    def submit(self, items: Sequence["Item"]) -> None:
        """Start the runs. Return at once if the launcher is detached, else when all have ended.

        Raises EnvironmentBroken where the launcher cannot work, and ConfigError where it refuses what is asked.
        """

    def wait(self, items: Sequence["Item"]) -> Ending:
        """Return how the jobs ended that `submit` started, as soon as they have."""
        return Ending([], retryable=True)

    def jobs(self) -> list[Job] | None:
        """Return the sweep's jobs that wait or run, None if the queue does not answer."""
        return []

    def cancel(self) -> int:
        """Stop the sweep's jobs and take them from the queue. Return how many there were."""
        return 0

    def last_words(self) -> list[str]:
        """Return a line for each ended job of the newest submission, empty if that left no run without a record."""
        return []


def named(name: str) -> type[Launcher]:
    """Return the launcher of `launcher=<name>`."""
    return cast(type[Launcher], import_module(f"{__name__}.{name}").LAUNCHER)


def every() -> list[type[Launcher]]:
    """Return all launchers: an earlier command may have started the sweep with another launcher than the present one."""
    return [named(name) for name in CHOICES["launcher"]]
