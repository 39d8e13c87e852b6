"""`bench search`: the Pareto front of accuracy against stored bytes, by Optuna, over runs that are those of any sweep.

A candidate has a value for each key of the search's space. It has to pass, in this order:
1. It can be made at all (bits, rows, widths), which needs no weights.
2. Its embedding, before any training, is not dominated: no candidate so far stores as little and has an error (weighted by the
   tokens' frequency) that is lower by more than `search.slack`.
3. It is trained with seed 0 on every task of the search: these are the values that Optuna learns from.
4. Of the trained candidates the half nearest to the front, and all of the front, get a second seed; of these the half nearest to
   the new front two more; and so on to `search.seeds`. The front is drawn among those that have all seeds.

Several processes may search at once. They share the study's journal. A trial belongs to the process that holds its claim. If
that process dies, another takes the trial over with its values.
"""

import itertools
import json
import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from bench import store
from bench.errors import BenchError, ConfigError
from bench.probes.fit import fits
from bench.runs.identity import Prepared
from bench.settings.compose import choices, compose_config, text_of
from bench.settings.schema import RunConfig
from bench.sweep import launch
from bench.sweep.plan import Declared, Item, Plan, Sweep, against_store, check, check_held_out, expand
from bench.sweep.trials import Trials
from bench.text import escape, markdown_table

if TYPE_CHECKING:
    from optuna import Trial

log = logging.getLogger("bench")
Point = tuple[str, ...]  # a candidate: the overrides that set it


class Scored(NamedTuple):
    """A trained candidate's mean score over its tasks and seeds, beside its stored bytes."""

    seeds: int
    score: float
    bytes: int


@dataclass(frozen=True)
class Found:
    """The result of a search: a row for each candidate (dominated, impossible and failed ones too), and closing lines."""

    table: pd.DataFrame
    lines: list[str]
    failed: bool
    config: RunConfig


def search(overrides: Sequence[str]) -> Found:
    """Return the result of the search that `search=<name>` names; its table and front lie beside the journal.

    Raises ConfigError before any work, and EnvironmentBroken without Optuna.
    """
    task = Search(overrides)
    while batch := task.trials.take(task.settings.batch, task.settings.trials):
        with ExitStack() as held:
            for _, claim in batch:
                held.callback(claim.release)
                held.enter_context(claim.beating())
            task.evaluate([trial for trial, _ in batch])
    return task.close(task.halve())


class Search:
    """A search with its study on disk."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.others = [o for o in overrides if not o.startswith(("search=", "search."))]
        if not any(override.startswith("search=") for override in overrides):
            names = ", ".join(choices("search"))
            raise ConfigError(f"search is not set: add search=<name>. Available: {names}.")
        self.settings = compose_config(overrides).search
        _check(self.settings.space, self.settings.fixed, self.others)
        if not self.settings.tasks:
            raise ConfigError("search.tasks is empty: name at least one task.")
        self.possible, impossible = self._candidates()
        if not self.possible:
            raise impossible[0]
        first = next(iter(self.possible.values()))
        self.config = first[0].config
        check(self.config)
        for run in first:
            check_held_out(run.config.task)
            if not run.config.task.higher_is_better:
                raise ConfigError(
                    f"search.tasks ({run.config.task.name}): its headline is better when lower, but a search looks for high scores."
                )
        self.folder = Path(self.config.results_dir) / "search" / self.settings.name
        store.check_writable(self.folder, Path(self.config.cache_dir))
        self.trials = Trials(self.folder, [run.run_id for runs in self.possible.values() for run in runs])
        self.todo: dict[str, Item] = {}  # the runs that this process saw missing

    def _candidates(self) -> tuple[dict[Point, list[Prepared]], list[ConfigError]]:
        """Return the possible candidates with their runs of seed 0, and the errors of the impossible ones."""
        space, possible, errors = self.settings.space, dict[Point, list[Prepared]](), list[ConfigError]()
        for values in itertools.product(*space.values()):
            point = _point(dict(zip(space, values, strict=True)))
            try:
                possible[point] = self._runs(point, 1)
            except ConfigError as error:
                errors.append(error)
        return possible, errors

    def evaluate(self, trials: Sequence["Trial"]) -> None:
        """End the trials: as impossible, as dominated by fit, or with accuracy and bytes after a run of seed 0 a task."""
        space = self.settings.space.items()
        points = {
            t.number: _point({key: t.suggest_categorical(key, of) for key, of in space}) for t in trials
        }

        # Leave out what cannot be made.
        left = [trial for trial in trials if points[trial.number] in self.possible]
        for trial in trials:
            if trial not in left:
                self.trials.end(trial, "impossible")
        log.info("search | %d candidates fitted, %d cannot be made", len(left), len(trials) - len(left))

        # Fit the embeddings, and leave out those that another dominates.
        first = [self.possible[points[trial.number]][0] for trial in left]
        rows = {_embedding(row["config"]): row for row in (fits(first) if first else [])}
        for trial, run in zip(left, first, strict=True):
            row = rows[_embedding(run.canonical)]
            trial.set_user_attr("embedding_bytes", row["embedding_bytes"])
            trial.set_user_attr("fit_error", row["weighted_error"])
        fitted = [trial.user_attrs for trial in self.trials.all() if "fit_error" in trial.user_attrs]
        passed = [trial for trial in left if not self._dominated(trial.user_attrs, fitted)]
        for trial in left:
            if trial not in passed:
                self.trials.end(trial, "dominated by fit")

        # Train the others.
        log.info("search | %d of %d go on to training", len(passed), len(left))
        scores = self._scores([points[trial.number] for trial in passed], 1)
        for trial in passed:
            score = scores[points[trial.number]]
            values = None if score is None else [score, trial.user_attrs["embedding_bytes"]]
            self.trials.end(trial, "trained" if values else "failed", values)

    def _dominated(self, facts: dict[str, Any], fitted: Sequence[dict[str, Any]]) -> bool:
        return any(
            other["embedding_bytes"] <= facts["embedding_bytes"]
            and other["fit_error"] * (1 + self.settings.slack) < facts["fit_error"]
            for other in fitted
        )

    def halve(self) -> dict[Point, Scored]:
        """Return the trained candidates' results, the better half of them with more seeds, and so on."""
        found = {
            _point(trial.params): Scored(1, trial.values[0], trial.user_attrs["embedding_bytes"])
            for trial in self.trials.all()
            if trial.values
        }
        kept, seeds = list(found), 1
        while kept and seeds < self.settings.seeds:
            gaps = gaps_to_front({point: found[point][1:] for point in kept})
            number = max(math.ceil(len(kept) / 2), sum(gap == 0 for gap in gaps.values()))
            kept = sorted(kept, key=lambda point: gaps[point])[:number]
            seeds = min(2 * seeds, self.settings.seeds)
            scores = {p: score for p, score in self._scores(kept, seeds).items() if score is not None}
            found |= {p: Scored(seeds, score, found[p].bytes) for p, score in scores.items()}
            kept = list(scores)
        return found

    def _sweep(self, points: Sequence[Point], seeds: int) -> Sweep:
        return Sweep(
            f"search-{self.settings.name}",
            self.settings.purpose,
            list(self.settings.fixed),
            [list(point) for point in points],
            {"task": self.settings.tasks, "seed": list(range(seeds))},
        )

    def _runs(self, point: Point, seeds: int) -> list[Prepared]:
        return [declared.run for declared in expand(self._sweep([point], seeds), self.others).values()]

    def _plan(self, points: Sequence[Point], seeds: int) -> Plan:
        sweep = self._sweep(points, seeds)
        return against_store(sweep, expand(sweep, self.others))

    def _scores(self, points: Sequence[Point], seeds: int) -> dict[Point, float | None]:
        """Return the candidates' mean score over tasks and seeds, None where a run failed. Run what is missing first."""
        if not points:
            return {}
        plan = self._plan(points, seeds)
        self.todo |= {item.run_id: item for item in plan.todo()}
        outcome = launch.carry_out(plan, wait=True)
        if outcome.missing():
            raise BenchError(" ".join(launch.closing(outcome)[0]))
        scores: dict[Point, float | None] = {}
        for point in points:
            headlines = [store.read(plan.path(run))["headline"] for run in self._runs(point, seeds)]
            values = [headline["value"] for headline in headlines if headline]
            scores[point] = float(np.mean(values)) if len(values) == len(headlines) else None
        return scores

    def close(self, found: dict[Point, Scored]) -> Found:
        """Write trials.csv and front.md and return the end of the search."""
        table = self._table(found)
        store.write_atomically(self.folder / "trials.csv", table.to_csv(index=False))
        front = table[table.outcome == "front"].drop_duplicates(list(self.settings.space))
        shown = front.sort_values("embedding_bytes").drop(columns=["trial", "outcome"])
        cells = [
            [escape(f"{value:.4f}" if isinstance(value, float) else value) for value in row]
            for row in shown.itertuples(index=False)
        ]
        text = markdown_table(list(shown.columns), cells, numeric=len(shown.columns))
        title = f"# {self.settings.name}: {self.settings.purpose}\n\n"
        store.write_atomically(self.folder / "front.md", title + text)

        # The closing lines count the trials by outcome, and the runs as a sweep does.
        counts = table.drop_duplicates(list(self.settings.space)).outcome.value_counts()
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        count = f"trials {len(table)} ({outcomes})" if outcomes else f"trials {len(table)}"
        if not found:
            return Found(table, [f"{count} | front 0"], "failed" in counts, self.config)
        ends, failed = launch.closing(launch.Outcome(self._everything(found), list(self.todo.values())))
        last = f"{count} | {ends[-1]} | front {len(front)}"
        return Found(table, [text, *ends[:-1], last], failed, self.config)

    def _table(self, found: dict[Point, Scored]) -> pd.DataFrame:
        """Return a row for each trial: what was tried, bytes, fit error, outcome, and the score over so many seeds."""
        most = max((result.seeds for result in found.values()), default=0)
        gaps = gaps_to_front({point: result[1:] for point, result in found.items() if result.seeds == most})
        rows = []
        for trial in self.trials.all():
            point, facts = _point(trial.params), trial.user_attrs
            result = found.get(point)
            rows.append(
                {
                    "trial": trial.number,
                    **trial.params,
                    "embedding_bytes": facts.get("embedding_bytes"),
                    "fit_error": facts.get("fit_error"),
                    "outcome": "front" if gaps.get(point) == 0 else facts.get("outcome"),
                    "seeds": result and result.seeds,
                    "score": result and result.score,
                }
            )
        return pd.DataFrame(rows).astype({"seeds": "Int64", "embedding_bytes": "Int64"})

    def _everything(self, found: dict[Point, Scored]) -> Plan:
        """Return the plan of all runs of the trained candidates, and of those that failed."""
        wanted = {point: result.seeds for point, result in found.items()}
        for trial in self.trials.all():
            if trial.user_attrs.get("outcome") == "failed":
                wanted.setdefault(_point(trial.params), 1)
        declared: dict[str, Declared] = {}
        for seeds in sorted(set(wanted.values())):
            points = [point for point, number in wanted.items() if number == seeds]
            declared |= expand(self._sweep(points, seeds), self.others)
        return against_store(self._sweep(list(wanted), 1), declared)


def gaps_to_front(found: dict[Point, tuple[float, int]]) -> dict[Point, float]:
    """Return the difference of each candidate's score to the best of those that store no more; 0 only on the Pareto front.

    `found` holds (score, bytes). Of equal scores the smaller embedding is on the front, and the other next to it.
    """
    gaps = {}
    for point, (score, size) in found.items():
        better = [
            other
            for other, bytes_ in found.values()
            if bytes_ <= size and other >= score and (other, bytes_) != (score, size)
        ]
        gaps[point] = max(max(better) - score, 1e-12) if better else 0.0
    return gaps


def _point(values: dict[str, Any]) -> Point:
    return tuple(f"{key}={text_of(value)}" for key, value in values.items())


def _embedding(canonical: dict[str, Any]) -> str:
    return json.dumps([canonical["embedding"], canonical["assignment"]], sort_keys=True)


def _check(space: dict[str, Any], fixed: Sequence[str], others: Sequence[str]) -> None:
    """Raise ConfigError for an empty space, or for a key or value that no candidate could have."""
    if not space or not all(space.values()):
        raise ConfigError("search.space is empty: give every key at least one value.")
    for key in space:
        if key.partition(".")[0] in ("model", "task", "data", "seed"):
            raise ConfigError(
                f"search.space must not hold {key}: candidates are compared on one model, the same tasks and the same seeds."
            )
    for key, values in space.items():
        for value in values:
            compose_config([*fixed, f"{key}={text_of(value)}", *others])
