"""Sweeps on Slurm: a job array, through submitit, whose tasks take runs from the plan as local workers do.

Everything passes through the shared results folder: the plan's file, claims and records. The queue is only asked what waits.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from bench.errors import ConfigError, EnvironmentBroken
from bench.logs import set_up_logging
from bench.settings.compose import compose_config
from bench.settings.schema import Slurm
from bench.store import claims, sha256, write_atomically
from bench.sweep import sbatch
from bench.sweep.plan import Item, Plan
from bench.sweep.worker import finished

log = logging.getLogger("bench")
POLL = 3.0  # seconds between two looks at the queue
SETTLE = 30.0  # seconds until a file written on one node is seen on all others


@dataclass(frozen=True)
class Job:
    """A task of an array in the queue, as Slurm tells it."""

    id: str
    state: str
    reason: str  # why it waits, or where it runs


class Task:
    """What one task of the array does. submitit keeps it, calls it, and calls it again after a requeue."""

    def __init__(self, plan_file: Path) -> None:
        self.plan_file = plan_file

    def __call__(self) -> None:
        """Take runs until none is left or none fits in the time that is left; then ask for another turn."""
        from bench.sweep.local import carry_out, gpu_count

        set_up_logging()
        stored = json.loads(self.plan_file.read_text())
        items = [Item(**item) for item in stored["items"]]
        config = compose_config(items[0].overrides)
        launcher = cast(Slurm, config.launcher)
        gpus = gpu_count(config.device) if launcher.gpus is None else launcher.gpus
        carry_out(
            items,
            config,
            gpus or 1,
            cancelled=Path(stored["cancelled"]),
            patience=claims.EXPIRY,
            ends=time.time() + launcher.minutes * 60 - warning(launcher),
        )
        if any(not finished(item) and claims.holder(Path(item.record)) is None for item in items):
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's signal for: put me into the queue again

    def checkpoint(self) -> Any:
        """Return what submitit shall start next time: the same, it goes on from the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Task(self.plan_file))


def warning(launcher: Slurm) -> int:
    """Return how many seconds before its end a task is told to stop. From a fifth of its time on, submitit would take
    the end of the time for a preemption and start the task again for ever."""
    return min(180, launcher.minutes * 6)


def submit(items: Sequence[Item], plan: Plan, cancelled: Path) -> Path:
    """Submit one array for the runs and return the folder with its plan and its logs.

    Raises EnvironmentBroken without Slurm or submitit, and ConfigError with Slurm's own words where it refuses; then
    nothing was submitted.
    """
    launcher = cast(Slurm, plan.config.launcher)
    if shutil.which("sbatch") is None:
        raise EnvironmentBroken(
            "launcher (slurm): there is no sbatch on this machine: log in to a node of the cluster, or use launcher=local."
        )
    try:
        import submitit
    except ImportError as error:
        raise EnvironmentBroken(
            "launcher (slurm) needs submitit: pip install -c constraints.txt -e '.[slurm]'."
        ) from error
    folder = (cancelled.parent / f"{plan.sweep.name}-{uuid.uuid4().hex[:8]}").absolute()
    plan_file = folder / "plan.json"
    write_atomically(
        plan_file,
        json.dumps({"cancelled": str(cancelled.absolute()), "items": [asdict(item) for item in items]}),
    )
    executor = submitit.SlurmExecutor(folder, max_num_timeout=launcher.requeues)
    executor.update_parameters(
        job_name=job_name(plan),
        signal_delay_s=warning(launcher),
        setup=[
            '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
            *launcher.setup,
        ],
        **sbatch.parameters(launcher),
    )
    try:
        with executor.batch():
            jobs = [executor.submit(Task(plan_file)) for _ in range(min(launcher.tasks, len(items)))]
    except submitit.core.utils.FailedJobError as error:
        shutil.rmtree(folder)
        said = [line for line in str(error).splitlines() if "sbatch: error" in line] or str(
            error
        ).splitlines()
        raise ConfigError(f"launcher (slurm): nothing was submitted; Slurm says: {' '.join(said)}") from error
    log.info(
        "submitted job %s: %d tasks for %d runs; its output is in %s; `status` follows it",
        str(jobs[0].job_id).partition("_")[0],
        len(jobs),
        len(items),
        folder,
    )
    return folder


def job_name(plan: Plan) -> str:
    """Return the name by which every node finds a sweep's jobs: of the sweep and of its results folder."""
    return f"bench-{plan.sweep.name}-{_digest(Path(plan.config.results_dir))}"


def _digest(results_dir: Path) -> str:
    return sha256(str(results_dir.resolve()))[:8]


def queue(plan: Plan) -> list[Job] | None:
    """Return the sweep's jobs that wait or run; None if the queue does not answer, none where there is no Slurm."""
    answer = _squeue("--array", f"--name={job_name(plan)}", "--format=%i|%T|%R")
    return None if answer is None else [Job(*line.split("|", 2)) for line in answer]


def busy(results_dir: Path) -> bool:
    """Return whether a job of any sweep of this results folder waits or runs, or the queue does not answer."""
    names = _squeue("--format=%j")
    return names is None or any(
        name.startswith("bench-") and name.endswith(_digest(results_dir)) for name in names
    )


def _squeue(*arguments: str) -> list[str] | None:
    if shutil.which("squeue") is None:
        return []
    asked = subprocess.run(
        ["squeue", "--noheader", f"--user={os.getuid()}", *arguments], capture_output=True, text=True
    )
    if "configuration source" in asked.stderr:  # installed, but this machine belongs to no cluster
        return []
    if asked.returncode != 0:
        log.warning("the queue does not answer (%s)", asked.stderr.strip())
        return None
    return asked.stdout.split("\n")[:-1]


def cancel(plan: Plan) -> int:
    """Take the sweep's jobs from the queue, stop those that run, and return how many there were."""
    jobs = queue(plan)
    if jobs:
        subprocess.run(["scancel", f"--user={os.getuid()}", f"--name={job_name(plan)}"], check=True)
    return len(jobs or [])


def wait(items: Sequence[Item], plan: Plan) -> None:
    """Return when all runs have records, or no job is left and none of them is worked on."""
    told, quiet_since = None, None
    while True:
        jobs = queue(plan)
        ended = sum(map(finished, items))
        states = Counter(
            f"{job.state} {job.reason}" if job.state == "PENDING" else job.state for job in jobs or []
        )
        if (ended, states) != told:
            log.info(
                "%d of %d runs ended, %s jobs in the queue%s",
                ended,
                len(items),
                "?" if jobs is None else len(jobs),
                "".join(f", {number} {state}" for state, number in sorted(states.items())),
            )
        told = ended, states
        if ended == len(items):
            return
        if jobs is None or jobs or any(claims.holder(Path(item.record)) for item in items):
            quiet_since = None
        else:
            quiet_since = quiet_since or time.monotonic()
            if time.monotonic() - quiet_since > SETTLE:
                return
        time.sleep(POLL)
