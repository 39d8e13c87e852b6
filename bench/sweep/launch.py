"""The verbs plan, sweep, retry, status and cancel, whatever the launcher."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from bench import store
from bench.runs.identity import Prepared
from bench.store import claims
from bench.sweep import launchers
from bench.sweep.pace import STAGES
from bench.sweep.plan import UNDONE, Item, Plan, against_store, make
from bench.sweep.select import Selection
from bench.sweep.worker import finished

AGAIN = 3  # times that runs start again which killed workers or jobs left without a record
SHOWN = 10  # missing runs that the end of a sweep names

log = logging.getLogger("bench")


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    plan: Plan  # with the records that the store has afterwards
    todo: list[Item]  # the runs that the sweep had to do
    # repaired records, and last words of jobs that left runs behind
    words: list[str] = field(default_factory=list)
    submitted: bool = False  # jobs still work on the missing runs

    def missing(self) -> list[Prepared]:
        """Return the runs of `todo` that have no record and that nobody works on any more."""
        ids = set() if self.submitted else {item.run_id for item in self.todo}
        return [run for run in self.plan.runs if run.run_id in ids and self.plan.status(run) in UNDONE]


def describe(plan: Plan) -> str:
    """Return the purpose of a sweep, its runs by status, and the runs to do with the time that they will take."""
    todo = plan.todo()
    known = [item.seconds for item in todo if item.seconds is not None]
    runs = [plan.declared[item.run_id].run for item in todo]
    before = {stage: plan.pace.stage_seconds(stage, runs) for stage in STAGES}
    expected = ""
    if known:
        training = sum(known) / len(known) * len(todo)
        stages = "".join(f" and at most {_clock(time)} of {stage}" for stage, time in before.items() if time)
        expected = f", about {_clock(training)} of training{stages} (h:mm:ss), divided by the workers"
    counts = ", ".join(f"{number} {status}" for status, number in sorted(plan.counts().items()))
    lines = [f"{plan.sweep.name}: {plan.sweep.purpose}", f"{len(plan.runs)} runs: {counts}"]
    lines += [f"To do: {len(todo)}{expected}", *(f"  {item.run_id} {item.name}" for item in todo)]
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def sweep(overrides: Sequence[str], selection: Selection | None = None, wait: bool = False) -> Outcome:
    """Carry out a sweep's plan and return how it ended.

    On a cluster it returns when the jobs are submitted, or with `wait` when they have ended.
    """
    plan = make(overrides, selection)
    store.check_writable(Path(plan.config.results_dir), Path(plan.config.cache_dir))
    return carry_out(plan, wait)


def carry_out(plan: Plan, wait: bool) -> Outcome:
    """Carry out what a plan has to do and return how it ended.

    A detached launcher lets it return when the jobs are submitted; with `wait` it returns when they have ended. Runs that
    killed workers or jobs left without a record are started again, a few times.

    Raises KeyboardInterrupt if the sweep is cancelled meanwhile.
    """
    # Leave the runs to jobs that go on by themselves, unless the user waits for them.
    todo, cancelled = plan.todo(), plan.cancel_file()
    launcher = launchers.named(plan.config.launcher.name)(plan)
    log.info("%d runs to do, %d of %d done before", len(todo), plan.counts()["ok"], len(plan.runs))
    if not todo:
        return Outcome(plan, todo)
    if launcher.detached and not wait:
        launcher.submit(todo)
        return Outcome(against_store(plan.sweep, plan.declared), todo, submitted=True)

    # Carry them out, and start again what killed workers or jobs left.
    moved, begun = _moved_aside(todo), claims.clock(cancelled.parent)
    for turn in range(1 + AGAIN):
        left = [item for item in todo if not finished(item)]
        if turn:
            log.warning("%d runs are missing and start again (%d of %d)", len(left), turn, AGAIN)
        launcher.submit(left)
        words, retryable = launcher.wait(left)
        if cancelled.exists() and cancelled.stat().st_mtime >= begun:
            raise KeyboardInterrupt("cancelled")
        if all(map(finished, todo)):
            words = []
            break
        for line in words:
            log.warning(line)
        if not retryable:
            break

    # Name the records that could not be read.
    aside = {run_id: path for run_id, path in _moved_aside(todo).items() if run_id not in moved}
    repaired = [
        f"repaired {item.name}: its record could not be read and is now {aside[item.run_id]}; the run was done again"
        for item in todo
        if item.run_id in aside and finished(item)
    ]
    return Outcome(against_store(plan.sweep, plan.declared), todo, [*repaired, *words])


def _moved_aside(items: Sequence[Item]) -> dict[str, Path]:
    """Return the paths of unreadable records that were moved aside, by run_id."""
    paths = {item.run_id: store.aside(Path(item.record)) for item in items}
    return {run_id: path for run_id, path in paths.items() if path.exists()}


def cancel(overrides: Sequence[str], seeds: int | None = None) -> str:
    """Stop a sweep wherever it runs and return a line that counts what was stopped. Running runs are recorded as interrupted."""
    plan = make(overrides, Selection(seeds=seeds))
    running = sum(claims.holder(plan.path(run)) is not None for run in plan.runs)
    plan.cancel_file().touch()
    taken = sum(launcher(plan).cancel() for launcher in launchers.every())
    return f"cancelled {plan.sweep.name}: stopped runs {running}, jobs taken from the queue {taken}"


def closing(outcome: Outcome) -> tuple[list[str], bool]:
    """Return the lines that end a sweep, and whether a run failed or is missing.

    The lines are repaired records, last words, failures, missing runs, and a count of all runs.
    """
    plan, missing = outcome.plan, outcome.missing()
    ids = {item.run_id for item in outcome.todo}
    ok = Counter(run.run_id in ids for run in plan.runs if plan.status(run) == "ok")
    counts = [("done", ok[True]), ("skipped", ok[False])]
    last = _line(counts, plan)
    if outcome.submitted:  # what has not finished waits for a job, or runs already
        queued = {run.run_id for run in plan.runs if run.run_id in ids and plan.status(run) != "ok"}
        others = replace(
            plan, known={run_id: known for run_id, known in plan.known.items() if run_id not in queued}
        )
        last = _line([*counts, ("queued", len(queued))], others, 0)
    lines = [*outcome.words, *_failures(plan), *_missing(plan, missing), last]
    return lines, bool(missing) or any(map(plan.failed, plan.runs))


def _missing(plan: Plan, runs: Sequence[Prepared]) -> list[str]:
    if not runs:
        return []
    names = [f"{run.name} ({plan.status(run)})" for run in runs[:SHOWN]]
    more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    return [f"{len(runs)} runs are missing, the same command goes on with them: {', '.join(names)}{more}"]


def status(overrides: Sequence[str], selection: Selection | None = None) -> tuple[list[str], bool]:
    """Return lines with a sweep's failures and its runs by state, from records, claims and queues, and whether a run failed."""
    plan = make(overrides, selection)
    open_runs = [run for run in plan.runs if plan.status(run) != "ok"]
    held = {run.run_id: holder for run in open_runs if (holder := claims.holder(plan.path(run))) is not None}
    plan = replace(plan, known={run_id: known for run_id, known in plan.known.items() if run_id not in held})

    # Running runs and jobs.
    all_launchers = [launcher(plan) for launcher in launchers.every()]
    queues = [launcher.jobs() for launcher in all_launchers]
    queued = [job for queue in queues for job in queue or []]
    running = [run for run in open_runs if run.run_id in held]
    lines = [f"running {run.name} on {held[run.run_id].get('host', 'a node')}" for run in running]
    lines += [f"job {job.id} {job.state} {job.reason}" for job in queued]

    # The count of all. Missing runs that no job is left for come with the last words of the jobs.
    done, failed = plan.counts()["ok"], sum(map(plan.failed, plan.runs))
    waiting = sum(plan.status(run) in UNDONE for run in open_runs) - len(held) if queued else 0
    missing = len(plan.runs) - done - len(held) - waiting - failed
    if missing and not any(queues) and None not in queues:
        lines += [line for launcher in all_launchers for line in launcher.last_words()]
    counts = [("done", done), ("running", len(held)), ("queued", waiting)]
    return [*lines, *_failures(plan), _line(counts, plan, missing)], failed > 0


def _failures(plan: Plan) -> list[str]:
    runs = [run for run in plan.runs if plan.failed(run) or plan.status(run) == "unreadable"]
    return [f"{plan.status(run)} {run.name}: {plan.known[run.run_id].message}" for run in runs]


def _line(counts: Sequence[tuple[str, int]], plan: Plan, missing: int | None = None) -> str:
    """Return a line such as "done 118 | skipped 40 | failed 2 (oom 1, diverged 1)", with "missing" where runs are."""
    kinds = Counter(plan.status(run) for run in plan.runs if plan.failed(run))
    missing = sum(plan.status(run) in UNDONE for run in plan.runs) if missing is None else missing
    parts = [f"{name} {number}" for name, number in counts]
    parts += [f"missing {missing}"] if missing else []
    details = f" ({', '.join(f'{kind} {number}' for kind, number in sorted(kinds.items()))})" if kinds else ""
    return " | ".join([*parts, f"failed {kinds.total()}{details}"])
