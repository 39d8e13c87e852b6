"""What the verbs plan, sweep, retry, status and cancel do, on one machine and on a cluster alike."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import store
from bench.sweep import claims, slurm
from bench.sweep.plan import UNDONE, Item, Plan, against_store, make
from bench.sweep.select import parse

log = logging.getLogger("bench")


def describe(plan: Plan) -> str:
    """Return what a sweep is for, its runs by status, and what is to do with the hours it will take."""
    todo = plan.todo()
    known = [item.seconds for item in todo if item.seconds is not None]
    hours = (
        f", about {sum(known) / len(known) * len(todo) / 3600:.2f} hours of training, divided by the workers"
        if known
        else ""
    )
    return "\n".join(
        [
            f"{plan.sweep.name}: {plan.sweep.purpose}",
            f"{len(plan.runs)} runs: "
            + ", ".join(f"{n} {status}" for status, n in sorted(plan.counts().items())),
            f"To do: {len(todo)}{hours}",
            *(f"  {item.run_id} {item.name}" for item in todo),
        ]
    )


def sweep(arguments: Sequence[str], overwrite: str | None = None) -> tuple[Plan, list[Item]]:
    """Carry out a sweep's plan; return the plan as it is afterwards and what there was to do.

    `overwrite` replaces the configuration's policy. On Slurm it returns when the jobs are submitted, or with --wait ended.
    """
    flags, overrides = parse(arguments)
    plan = make([*overrides, *([f"overwrite={overwrite}"] if overwrite else [])], flags)
    store.check_writable(Path(plan.config.results_dir), Path(plan.config.cache_dir))
    return carry_out(plan, flags.wait)


def carry_out(plan: Plan, wait: bool) -> tuple[Plan, list[Item]]:
    """Carry out what a plan has to do; return the plan as it is afterwards and what there was to do.

    On Slurm it returns when the jobs are submitted, or if it shall `wait` when they have ended.
    """
    todo, config = plan.todo(), plan.config
    log.info("%d runs to do, %d of %d done before", len(todo), plan.counts()["ok"], len(plan.runs))
    if not todo:
        return plan, todo
    if config.launcher.name == "slurm":
        slurm.submit(todo, plan, cancel_file(plan))
        if wait:
            slurm.wait(todo, plan)
    else:
        from bench.sweep import local

        local.carry_out(
            todo,
            config,
            min(config.workers or local.default_workers(config.device), len(todo)),
            cancelled=cancel_file(plan),
        )
    return against_store(plan.sweep, plan.declared), todo


def cancel_file(plan: Plan) -> Path:
    """Return the file whose touching stops every launcher that began before, on any node."""
    path = Path(plan.config.results_dir) / "jobs" / f"{plan.sweep.name}.cancel"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def cancel(arguments: Sequence[str]) -> str:
    """Stop a sweep wherever it runs, return what was stopped: running runs are recorded as interrupted."""
    flags, overrides = parse(arguments)
    plan = make(overrides, replace(flags, limit=None, only=()))
    running = sum(claims.holder(plan.path(run)) is not None for run in plan.runs)
    cancel_file(plan).touch()
    jobs = slurm.cancel(plan)
    return f"cancelled {plan.sweep.name}: {running} running runs are stopped, {jobs} jobs are taken from the queue"


def closing(plan: Plan, todo: Sequence[Item]) -> tuple[list[str], bool]:
    """Return the lines that end a sweep, one a failure and the count of everything, and whether something failed."""
    meant = {item.run_id for item in todo}
    ok = Counter(run.run_id in meant for run in plan.runs if plan.status(run) == "ok")
    return [*_failures(plan), _line([("done", ok[True]), ("skipped", ok[False])], plan)], any(
        map(plan.failed, plan.runs)
    )


def status(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return a sweep's failures and its runs by state, from records, claims and the queue; and whether something failed."""
    flags, overrides = parse(arguments)
    plan = make(overrides, flags)
    open_runs = [run for run in plan.runs if plan.status(run) != "ok"]
    held = {run.run_id: holder for run in open_runs if (holder := claims.holder(plan.path(run))) is not None}
    plan = replace(plan, known={run_id: known for run_id, known in plan.known.items() if run_id not in held})
    jobs = slurm.queue(plan)
    lines = [
        f"running {run.name} on {held[run.run_id].get('host', 'a node')}"
        for run in open_runs
        if run.run_id in held
    ]
    lines += [f"job {job.id} {job.state} {job.reason}" for job in jobs or []]
    waiting = sum(plan.status(run) in UNDONE for run in open_runs) - len(held) if jobs else 0
    counts = [("done", plan.counts()["ok"]), ("running", len(held)), ("queued", waiting)]
    unseen = (
        plan.counts().total() - plan.counts()["ok"] - len(held) - waiting - sum(map(plan.failed, plan.runs))
    )
    return [*lines, *_failures(plan), _line(counts, plan, unseen)], any(map(plan.failed, plan.runs))


def _failures(plan: Plan) -> list[str]:
    told = [run for run in plan.runs if plan.failed(run) or plan.status(run) == "unreadable"]
    return [f"{plan.status(run)} {run.name}: {plan.known[run.run_id].message}" for run in told]


def _line(counts: Sequence[tuple[str, int]], plan: Plan, missing: int | None = None) -> str:
    """Return "done 118 | skipped 40 | failed 2 (oom 1, diverged 1)", and what is missing where something is."""
    kinds = Counter(plan.status(run) for run in plan.runs if plan.failed(run))
    missing = sum(plan.status(run) in UNDONE for run in plan.runs) if missing is None else missing
    parts = [f"{name} {number}" for name, number in [*counts, *([("missing", missing)] if missing else [])]]
    told = f" ({', '.join(f'{kind} {number}' for kind, number in sorted(kinds.items()))})" if kinds else ""
    return " | ".join([*parts, f"failed {kinds.total()}{told}"])
