"""The keys of each launcher, a class each: who carries out a sweep.

A site keeps its values of slurm in conf/launcher/<site>.yaml, below `defaults: [slurm]`, and writes launcher=<site>.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from bench.settings.choices import Choice
from bench.settings.numbers import number


@dataclass
class LauncherConfig(Choice):
    """Who carries out a sweep."""

    choice_of: ClassVar[str] = "launcher"
    name: str = "???"
    # minutes of a run, or of runs trained at once, before `timeout` is recorded
    time_limit: float | None = number(None, above=0)
    # runs of one task and recipe that train side by side: for a GPU that a single run leaves half idle
    runs_at_once: int = number(1, least=1)


@dataclass
class LocalConfig(LauncherConfig):
    """Worker processes of this machine, one for each GPU or CPU core, or `workers` of them."""

    name: str = "local"


@dataclass
class SlurmConfig(LauncherConfig):
    """A Slurm array whose tasks take runs, one after another, until their time is nearly over. Needs a shared folder."""

    name: str = "slurm"
    tasks: int = number(16, least=1)  # of the array, all running at once where the cluster has room
    partition: str | None = None  # null: the cluster's default
    account: str | None = None
    # of a task, with a worker each; 0: one worker on the CPU; null: not asked for, a worker for each visible GPU
    gpus: int | None = number(1, least=0)
    cpus: int | None = number(8, least=1)  # of a task; null: not asked for
    memory_gb: float | None = number(48, above=0)  # of a task; null: not asked for
    minutes: int = number(240, least=1)  # of a task
    requeues: int = number(20, least=0)  # times that a task whose time is over starts again
    # shell lines before a task begins, such as "module load cuda"
    setup: list[str] = field(default_factory=list)
    # further options of sbatch by their long names, such as gres: gpu:a100:1; true: an option without a value
    options: dict[str, Any] = field(default_factory=dict)
