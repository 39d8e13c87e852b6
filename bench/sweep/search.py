"""`bench search`: the Pareto front of accuracy against stored bytes, by Optuna, over runs that are those of any sweep.

A candidate is one value for each key of the search's space. It has to pass, in this order:
1. It can be made at all (bits, rows, widths), which needs no weights.
2. Its embedding, before any training, is not dominated: no candidate so far stores as little and has an error (weighted by the
   tokens' frequency) that is lower by more than `search.slack`.
3. It is trained with seed 0 on every task of the search: these are the values that Optuna learns from.
4. Of the trained candidates the half nearest to the front, and all of the front, get a second seed; of these the half nearest to
   the new front two more; and so on to `search.seeds`. The front is drawn among those that have all seeds.

Several processes may search at once: they share the study's journal, a trial belongs to who holds its claim, and a trial whose
process died is taken over with the values that it had.
"""

import itertools
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench import store
from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.probes.fit import fits
from bench.runs.identity import Prepared
from bench.settings.compose import compose_config, text_of
from bench.settings.schema import RunConfig
from bench.store import claims
from bench.store.claims import Claim
from bench.sweep import launch
from bench.sweep.plan import Item, Plan, Sweep, against_store, check, expand
from bench.text import escape, markdown_table

if TYPE_CHECKING:
    from optuna import Study, Trial

POLL = 1.0  # seconds between looks at trials that others hold
log = logging.getLogger("bench")
Point = tuple[str, ...]  # a candidate: the overrides that set it


@dataclass(frozen=True)
class Found:
    """What a search came to: a line a candidate (dominated, impossible and failed ones too), and the lines that end it."""

    table: pd.DataFrame
    lines: list[str]
    failed: bool
    config: RunConfig


def search(arguments: Sequence[str]) -> Found:
    """Return what the search named in the arguments (search=<name>) came to; its table and front lie beside the journal.

    Raises ConfigError before any work, and EnvironmentBroken without Optuna.
    """
    one = Search(arguments)
    while batch := one.take():
        with ExitStack() as held:
            for _, claim in batch:
                held.callback(claim.release)
                held.enter_context(claim.beating())
            one.carry_out([trial for trial, _ in batch])
    return one.close(one.halve())


class Search:
    """A search with its study on disk."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.others = [o for o in arguments if not o.startswith(("search=", "search."))]
        self.config = compose_config(arguments)
        self.settings = self.config.search
        _check(self.settings.space, self.settings.fixed, self.others)
        if not self.settings.tasks:
            raise ConfigError("search.tasks is empty: name at least one task.")
        self.possible, impossible = self._candidates()
        if not self.possible:
            raise impossible[0]
        first = next(iter(self.possible.values()))
        check(first[0].config)
        for run in first:
            if not run.config.task.higher_is_better:
                raise ConfigError(
                    f"search.tasks ({run.config.task.name}): its headline is better when lower, and the search looks for high scores."
                )
        self.folder = Path(self.config.results_dir) / "search" / self.settings.name
        store.check_writable(self.folder, Path(self.config.cache_dir))
        self.study = self._study()
        self.todo: dict[str, Item] = {}  # what this process found missing

    def _candidates(self) -> tuple[dict[Point, list[Prepared]], list[ConfigError]]:
        """Return each candidate that can be made with its runs of seed 0, and the errors of those that cannot."""
        space, possible, errors = self.settings.space, dict[Point, list[Prepared]](), list[ConfigError]()
        for values in itertools.product(*space.values()):
            point = _point(dict(zip(space, values, strict=True)))
            try:
                possible[point] = [run for run, *_ in expand(self._sweep([point], 1), self.others).values()]
            except ConfigError as error:
                errors.append(error)
        return possible, errors

    def _study(self) -> "Study":
        """Return the study of exactly these runs, new or as earlier processes left it."""
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise EnvironmentBroken(
                "bench search needs optuna: pip install -c constraints.txt -e '.[search]'."
            ) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        ids = sorted(run.run_id for runs in self.possible.values() for run in runs)
        return optuna.create_study(  # TPE learns from few trials, also while others still run
            storage=JournalStorage(JournalFileBackend(str(self.folder / "journal.log"))),
            sampler=optuna.samplers.TPESampler(),
            study_name=store.sha256("\n".join(ids))[:12],
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )

    def take(self) -> list[tuple["Trial", Claim]]:
        """Return the next trials, claimed: those that dead processes left, then new ones; none when all have ended."""
        while True:
            running = [
                trial for trial in self.study.get_trials(deepcopy=False) if not trial.state.is_finished()
            ]
            taken = list(
                itertools.islice(self._adopt([trial.number for trial in running]), self.settings.batch)
            )
            while (
                len(taken) < self.settings.batch
                and len(self.study.get_trials(deepcopy=False)) < self.settings.trials
            ):
                trial = self.study.ask()
                if claim := claims.take(
                    self._claimed(trial.number)
                ):  # or another took it for a dead process's
                    taken.append((trial, claim))
            if taken or not running:
                return taken
            time.sleep(POLL)

    def _adopt(self, numbers: Sequence[int]) -> Iterator[tuple["Trial", Claim]]:
        from optuna import Trial

        for number in numbers:
            if claim := claims.take(self._claimed(number)):
                now = self.study.get_trials(deepcopy=False)[number]
                if now.state.is_finished():  # by another, between the two looks
                    claim.release()
                else:
                    yield (
                        Trial(self.study, now._trial_id),
                        claim,
                    )  # as Study.ask makes one; values that it had are suggested again

    def _claimed(self, number: int) -> Path:
        return self.folder / self.study.study_name / f"trial-{number}.json"

    def carry_out(self, trials: Sequence["Trial"]) -> None:
        """End the trials: as impossible, as dominated by fit, or with accuracy and bytes after a run of seed 0 a task."""
        from optuna.trial import TrialState

        points = {
            trial.number: _point(
                {key: trial.suggest_categorical(key, values) for key, values in self.settings.space.items()}
            )
            for trial in trials
        }
        left = [trial for trial in trials if points[trial.number] in self.possible]
        for trial in trials:
            if trial not in left:
                trial.set_user_attr("outcome", "impossible")
                self.study.tell(trial, state=TrialState.PRUNED)
        log.info("search | %d candidates are fitted, %d cannot be made", len(left), len(trials) - len(left))
        first = [self.possible[points[trial.number]][0] for trial in left]
        rows = {_embedding(row["config"]): row for row in (fits(first) if first else [])}
        for trial, run in zip(left, first, strict=True):
            row = rows[_embedding(run.canonical)]
            trial.set_user_attr("embedding_bytes", row["embedding_bytes"])
            trial.set_user_attr("fit_error", row["weighted_error"])
        fitted = [t.user_attrs for t in self.study.get_trials(deepcopy=False) if "fit_error" in t.user_attrs]
        passed = []
        for trial in left:
            if any(
                other["embedding_bytes"] <= trial.user_attrs["embedding_bytes"]
                and other["fit_error"] * (1 + self.settings.slack) < trial.user_attrs["fit_error"]
                for other in fitted
            ):
                trial.set_user_attr("outcome", "dominated by fit")
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                passed.append(trial)
        log.info("search | %d of %d go on to training", len(passed), len(left))
        scores = self._scores([points[trial.number] for trial in passed], 1)
        for trial in passed:
            score = scores[points[trial.number]]
            trial.set_user_attr("outcome", "failed" if score is None else "trained")
            if score is None:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, [score, trial.user_attrs["embedding_bytes"]])

    def halve(self) -> dict[Point, tuple[int, float, int]]:
        """Return each trained candidate's seeds, mean score over tasks and seeds, and bytes."""
        found = {
            _point(trial.params): (1, trial.values[0], trial.user_attrs["embedding_bytes"])
            for trial in self.study.get_trials(deepcopy=False)
            if trial.values
        }
        kept, seeds = list(found), 1
        while kept and seeds < self.settings.seeds:
            gaps = gaps_to_front({point: found[point][1:] for point in kept})
            kept = sorted(kept, key=lambda point: gaps[point])[
                : max(math.ceil(len(kept) / 2), sum(gap == 0 for gap in gaps.values()))
            ]
            seeds = min(2 * seeds, self.settings.seeds)
            scores = self._scores(kept, seeds)
            kept = [point for point in kept if scores[point] is not None]
            found |= {point: (seeds, scores[point], found[point][2]) for point in kept}
        return found

    def _sweep(self, points: Sequence[Point], seeds: int) -> Sweep:
        return Sweep(
            f"search-{self.settings.name}",
            self.settings.purpose,
            list(self.settings.fixed),
            [list(point) for point in points],
            {"task": self.settings.tasks, "seed": list(range(seeds))},
        )

    def _plan(self, points: Sequence[Point], seeds: int) -> Plan:
        sweep = self._sweep(points, seeds)
        return against_store(sweep, expand(sweep, self.others))

    def _scores(self, points: Sequence[Point], seeds: int) -> dict[Point, float | None]:
        """Return the candidates' mean score over tasks and seeds, None where a run failed; what is missing is run."""
        if not points:
            return {}
        plan = self._plan(points, seeds)
        self.todo |= {item.run_id: item for item in plan.todo()}
        outcome = launch.carry_out(plan, wait=True)
        if outcome.missing():
            raise BenchError(" ".join(launch.closing(outcome)[0]))
        scores: dict[Point, float | None] = {}
        for point in points:
            runs = [run for run, *_ in expand(self._sweep([point], seeds), self.others).values()]
            headlines = [store.read(plan.path(run))["headline"] for run in runs]
            scores[point] = (
                None if None in headlines else float(np.mean([one["value"] for one in headlines if one]))
            )
        return scores

    def close(self, found: dict[Point, tuple[int, float, int]]) -> Found:
        """Write trials.csv and front.md and return the end of the search."""
        most = max((seeds for seeds, _, _ in found.values()), default=0)
        gaps = gaps_to_front(
            {point: (score, size) for point, (seeds, score, size) in found.items() if seeds == most}
        )
        trials = self.study.get_trials(deepcopy=False)
        lines = []
        for trial in trials:
            seeds, score, _ = found.get(_point(trial.params), (None, None, None))
            outcome = "front" if gaps.get(_point(trial.params)) == 0 else trial.user_attrs.get("outcome")
            lines.append(
                {
                    "trial": trial.number,
                    **trial.params,
                    "embedding_bytes": trial.user_attrs.get("embedding_bytes"),
                    "fit_error": trial.user_attrs.get("fit_error"),
                    "outcome": outcome,
                    "seeds": seeds,
                    "score": score,
                }
            )
        table = pd.DataFrame(lines).astype({"seeds": "Int64", "embedding_bytes": "Int64"})
        front = (
            table[table.outcome == "front"]
            .drop_duplicates(list(self.settings.space))
            .sort_values("embedding_bytes")
        )
        store.write_atomically(self.folder / "trials.csv", table.to_csv(index=False))
        shown = front.drop(columns=["trial", "outcome"])
        cells = [
            [escape(f"{value:.4f}" if isinstance(value, float) else value) for value in line]
            for line in shown.itertuples(index=False)
        ]
        text = markdown_table(list(shown.columns), cells, numeric=len(shown.columns))
        store.write_atomically(
            self.folder / "front.md", f"# {self.settings.name}: {self.settings.purpose}\n\n{text}"
        )
        counts = table.drop_duplicates(list(self.settings.space)).outcome.value_counts()
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if name != "front")
        if not found:
            return Found(table, [f"trials {len(trials)} ({told}) | front 0"], "failed" in counts, self.config)
        plan = self._everything(found)
        ends, failed = launch.closing(launch.Outcome(plan, list(self.todo.values())))
        return Found(
            table,
            [text, *ends[:-1], f"trials {len(trials)} ({told}) | {ends[-1]} | front {len(front)}"],
            failed,
            self.config,
        )

    def _everything(self, found: dict[Point, tuple[int, float, int]]) -> Plan:
        """Return the plan of all runs of the trained candidates, and of those that failed."""
        failed = [
            _point(t.params)
            for t in self.study.get_trials(deepcopy=False)
            if t.user_attrs.get("outcome") == "failed"
        ]
        numbers = {seeds for seeds, _, _ in found.values()}
        plans = [
            self._plan([point for point, (own, _, _) in found.items() if own == seeds], seeds)
            for seeds in numbers
        ]
        plans += [self._plan(failed, 1)] if failed else []
        return against_store(
            plans[0].sweep, {run_id: one for plan in plans for run_id, one in plan.declared.items()}
        )


def gaps_to_front(found: dict[Point, tuple[float, int]]) -> dict[Point, float]:
    """Return what each candidate's score lacks to the best of those that store no more; 0 exactly on the Pareto front.

    `found` holds (score, bytes). Of equal scores the smaller embedding is on the front, and the other next to it.
    """
    gaps = {}
    for point, (score, size) in found.items():
        better = [
            (other, bytes_)
            for other, bytes_ in found.values()
            if bytes_ <= size and other >= score and (other, bytes_) != (score, size)
        ]
        gaps[point] = max((other - score for other, _ in better), default=-1.0)
    return {point: 0.0 if gap < 0 else max(gap, 1e-12) for point, gap in gaps.items()}


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
