"""A sweep's declaration expanded to runs, and what the store already has of them."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench import store
from bench.errors import ConfigError, Impossible, unknown
from bench.runs.identity import Prepared, prepare, run_id, with_seed
from bench.settings.compose import choices, compose_config, text_of
from bench.settings.schema import RunConfig, TaskConfig
from bench.sweep import launchers
from bench.sweep.pace import Pace, examples
from bench.sweep.select import Selection
from bench.tasks.data import splits_read
from bench.tasks.specs import read_task

SEED = re.compile(r"seed=(\d+)")
KEYS = ("name", "purpose", "fixed", "points", "grid", "parts", "skip_impossible")
PART = ("name", "fixed", "points", "grid")
UNDONE = ("missing", "interrupted", "unreadable")
POLICIES = {  # `overwrite`: the statuses that are run
    "only-missing": UNDONE,
    "failed": (*UNDONE, *(status for status in store.STATUSES if status != "ok")),
}


@dataclass(frozen=True)
class Sweep:
    """A file of conf/sweep/: every point times the grid, each with the fixed overrides. All values are Hydra overrides.

    Instead of points and a grid it can have `parts`, each with a name, points, a grid and fixed overrides, which run in their order.
    An override that begins with a question mark holds only where its key is used.
    """

    name: str
    purpose: str
    fixed: list[str] = field(default_factory=list)
    points: list[list[str]] = field(default_factory=lambda: [[]])
    grid: dict[str, list[Any]] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    skip_impossible: bool = False  # leave out runs whose budget no size of the method fits

    def cut(self) -> list["Sweep"]:
        """Return the parts as sweeps without parts; the sweep itself if it has none."""
        return [
            Sweep(
                **{"name": "", "purpose": self.purpose}
                | part
                | {"fixed": [*self.fixed, *part.get("fixed", [])]}
            )
            for part in self.parts
        ] or [self]

    def overrides(self, grid: dict[str, list[Any]], names: Sequence[str] = ()) -> list[tuple[int, list[str]]]:
        """Return each run's part (a number) and overrides; `grid` replaces values of the file's grid.

        `names` are the parts that are meant, all by default; raises ConfigError for a name that no part has.
        """
        parts = self.cut()
        for name in names:
            if name not in (known := [part.name for part in parts]):
                raise ConfigError(unknown(f"part of the sweep {self.name}", name, known))
        return [
            (number, [*part.fixed, *point, *cell])
            for number, part in enumerate(parts)
            if part.name in (names or [part.name])
            for point in part.points
            for cell in itertools.product(
                *[
                    [f"{key}={text_of(value)}" for value in values]
                    for key, values in {**part.grid, **grid}.items()
                ]
            )
        ]


def load(overrides: Sequence[str]) -> tuple[Sweep, list[str]]:
    """Return the sweep that `sweep=<name>` among the overrides names, and the other overrides."""
    others = [o for o in overrides if not o.startswith("sweep=")]
    if len(others) == len(overrides):
        raise ConfigError(f"sweep is not set: add sweep=<name>. Available: {', '.join(choices('sweep'))}.")
    for name in (o.removeprefix("sweep=") for o in overrides if o.startswith("sweep=")):
        if name not in choices("sweep"):
            raise ConfigError(unknown("sweep", name, choices("sweep")))
    sweep = _read(name, compose_config(overrides).sweep)
    if not all(all(part.grid.values()) and part.points for part in sweep.cut()):
        raise ConfigError(
            f"The sweep '{sweep.name}' has an empty grid or no points: give every key at least one value."
        )
    return sweep, others


def _read(name: str, declared: Any) -> Sweep:
    """Return the sweep that the file of this name declares; raises ConfigError for what is none."""
    try:
        sweep = _typed(declared or {}, KEYS)
        for part in sweep.parts:
            _typed(part, PART)
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"conf/sweep/{name}.yaml is no sweep ({str(error).splitlines()[0]}): give it a name, a purpose, points (lists of "
            "overrides) and a grid (a list of values for each key), or parts, as in conf/sweep/demo.yaml."
        ) from error
    return sweep


def _typed(declared: Any, keys: Sequence[str]) -> Sweep:
    """Return what declares a sweep, or a part, with its types checked; raises OmegaConfBaseException or ConfigError."""
    for key in declared if isinstance(declared, dict) else ():
        if key not in keys:
            raise ConfigError(unknown("key in the sweep's file", key, keys))
    named = {} if keys == KEYS else {"name": "", "purpose": ""}  # a part needs neither
    sweep = cast(Sweep, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Sweep), named, declared)))
    for override in itertools.chain(sweep.fixed, *sweep.points):
        if not isinstance(override, str):  # list[str] takes a mapping
            raise ConfigError(
                f"{override} in the sweep's file is no override: put it in quotes, as YAML reads a leading question mark otherwise."
            )
    return sweep


@dataclass(frozen=True)
class Item:
    """A run to do, in the form that workers get: small, and plain JSON."""

    run_id: str
    name: str
    overrides: list[str]
    record: str  # path of its record
    stamp: str | None  # of the record that the plan saw: the run is finished once the stamp differs
    seconds: float | None  # of training, expected
    alike: str | None = None  # shared by runs that can train side by side; null: the run has to train alone


class Declared(NamedTuple):
    """A run of a sweep."""

    run: Prepared
    overrides: list[str]
    part: int  # number of its part in the sweep's file


def expand(sweep: Sweep, others: Sequence[str], selection: Selection | None = None) -> dict[str, Declared]:
    """Return the sweep's runs, checked, each once, by run id. `others` (from the command line) win."""
    selection = selection or Selection()
    grid = {} if selection.seeds is None else {"seed": list(range(selection.seeds))}
    runs: dict[str, Declared] = {}
    # By the overrides without the seed: runs of other seeds differ from the first run in nothing else.
    first: dict[tuple[str, ...], Prepared] = {}
    for part, declared in sweep.overrides(grid, selection.parts()):
        overrides = [*declared, *others]
        # A value such as ${seed} is another for each seed.
        alone = any("${" in override for override in overrides)
        rest = tuple(override for override in overrides if alone or not SEED.fullmatch(override))
        seeds = [int(match[1]) for override in overrides if (match := SEED.fullmatch(override))]
        try:
            if rest not in first:
                first[rest] = prepare(compose_config(overrides))
        except Impossible:
            if sweep.skip_impossible:
                continue
            raise
        prepared = with_seed(first[rest], seeds[-1]) if seeds else first[rest]
        runs.setdefault(prepared.run_id, Declared(prepared, overrides, part))
    return {declared.run.run_id: declared for declared in selection.choose([*runs.values()])}


@dataclass(frozen=True)
class Known:
    """A run's record in the store: its status, or `unreadable`, and the failure's last line."""

    status: str
    message: str


@dataclass(frozen=True)
class Plan:
    """The sweep's runs beside the records that the store has of them."""

    sweep: Sweep
    runs: list[Prepared]
    declared: dict[str, Declared]  # by run_id
    known: dict[str, Known]  # run_id -> its record
    stamps: dict[str, str | None]  # run_id -> stamp of its record, from before the record was read
    pace: Pace

    @property
    def config(self) -> RunConfig:
        """Return the first run's configuration, for what all share: folders, device, launcher."""
        return self.runs[0].config

    def path(self, run: Prepared) -> Path:
        """Return the path of a run's record."""
        return _path(run)

    def cancel_file(self) -> Path:
        """Return the file that stops all earlier launchers of the sweep, on any node, once it is touched. Make its folder."""
        path = Path(self.config.results_dir) / "jobs" / f"{self.sweep.name}.cancel"
        store.make_folder(path.parent)
        return path

    def beside(self, items: Sequence[Item]) -> list[Path]:
        """Return the paths of the records of the sweep's other runs, whether they are there or not."""
        named = {item.run_id for item in items}
        return [self.path(run) for run in self.runs if run.run_id not in named]

    def todo(self) -> list[Item]:
        """Return the runs that `overwrite` selects: part by part, and in each the longest first."""
        selected = [run for run in self.runs if self.status(run) in POLICIES[self.config.overwrite]]
        seconds = {run.run_id: self.pace.seconds(run.config) for run in selected}

        def order(run: Prepared) -> tuple[float, ...]:
            part = self.declared[run.run_id].part
            return part, -(seconds[run.run_id] or 0), -(examples(run.config) or 0)

        return [
            Item(
                run_id=run.run_id,
                name=run.name,
                overrides=self.declared[run.run_id].overrides,
                record=str(self.path(run)),
                stamp=self.stamps[run.run_id],
                seconds=seconds[run.run_id],
                alike=alike(run),
            )
            for run in sorted(selected, key=order)
        ]

    def status(self, run: Prepared) -> str:
        """Return the record's status, `unreadable`, or `missing`."""
        return self.known[run.run_id].status if run.run_id in self.known else "missing"

    def failed(self, run: Prepared) -> bool:
        """Return whether the run has a record of a failure."""
        return self.status(run) not in (*UNDONE, "ok")

    def counts(self) -> Counter[str]:
        """Return the number of runs of each status."""
        return Counter(self.status(run) for run in self.runs)


def make(overrides: Sequence[str], selection: Selection | None = None) -> Plan:
    """Return the plan of the sweep named in the overrides against the store. Raises ConfigError before any work."""
    sweep, others = load(overrides)
    runs = expand(sweep, others, selection)
    check(next(iter(runs.values())).run.config)
    return against_store(sweep, runs)


def against_store(sweep: Sweep, declared: dict[str, Declared]) -> Plan:
    """Return the plan of these runs with the records that the store has of them now."""
    runs = [item.run for item in declared.values()]
    stamps = {run.run_id: store.stamp(_path(run)) for run in runs}
    known: dict[str, Known] = {}
    pace = Pace()
    for path, record in store.each(Path(runs[0].config.results_dir)):
        digest = path.stem.rpartition("-")[2]
        if not isinstance(record, str):
            pace.add(record)
            if digest in stamps:
                known[digest] = Known(record["status"], (record["error"] or {}).get("message", ""))
        elif digest in stamps:
            known[digest] = Known("unreadable", f"{path}: {record}")
    return Plan(sweep, runs, declared, known, stamps, pace)


def alike(run: Prepared) -> str:
    """Return a digest that runs share if they can train side by side: of model, task, data and recipe, so that steps are the same."""
    differ = ("teacher", "teacher_weight", "learning_rate", "table_factor")
    recipe = {key: value for key, value in run.canonical["training"].items() if key not in differ}
    parts = {key: run.canonical[key] for key in ("model", "task", "data")}
    return run_id(parts | {"training": recipe, "deterministic": run.config.deterministic})


def _path(run: Prepared) -> Path:
    return store.path_of(Path(run.config.results_dir), run.name, run.run_id)


def check_held_out(task: TaskConfig) -> None:
    """Raise ConfigError for a task that is scored on a reported split: one that a task's file evaluates or predicts.

    Nothing is chosen on what is reported.
    """
    for role in task.evaluate:
        read = splits_read(task, role)
        owners = [read_task(owner) for owner, _ in read]
        if any(
            read & splits_read(own, reported) for own in owners for reported in [*own.evaluate, *own.predict]
        ):
            raise ConfigError(
                f"task.splits.{role} ({task.splits[role]}) of {task.name} is what a task reports, and nothing is chosen on that: "
                f"hold out training rows, as in task.splits.train=train[:90%] task.splits.{role}=train[90%:], or score another "
                "split (task.evaluate)."
            )


def check(config: RunConfig) -> None:
    """Raise ConfigError for settings that no sweep can use."""
    if config.overwrite not in POLICIES:
        raise ConfigError(unknown("overwrite", config.overwrite, POLICIES))
    if Path(config.results_dir).is_file():
        raise ConfigError(f"results_dir ({config.results_dir}) is a file: name a folder.")
    launchers.named(config.launcher.name).check(config.launcher)
