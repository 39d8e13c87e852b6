"""`launcher=slurm`: a job array, through submitit, whose tasks take runs from the plan as local workers do.

Everything passes through the shared results folder: the plan's file, claims and records. The queue only says what waits.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from bench.errors import ConfigError, EnvironmentBroken
from bench.logs import set_up_logging
from bench.settings.compose import compose_config
from bench.settings.launchers import SlurmConfig
from bench.store import claims, sha256, write_atomically
from bench.sweep.launchers import Ending, Job
from bench.sweep.launchers.queued import QueuedLauncher
from bench.sweep.launchers.slurm import ended, sbatch
from bench.sweep.plan import Item
from bench.sweep.worker import finished

log = logging.getLogger("bench")


class Task:
    """A task of the array. submitit pickles it, calls it, and calls it again after a requeue."""

    def __init__(self, plan_file: Path) -> None:
        self.plan_file = plan_file

    def __call__(self) -> None:
        """Take runs until none is left or none fits in the time that is left, then ask for another turn."""
        from bench.sweep.pool import carry_out, gpu_count

        set_up_logging()
        stored = json.loads(self.plan_file.read_text())
        items = [Item(**item) for item in stored["items"]]
        config = compose_config(items[0].overrides)
        launcher = cast(SlurmConfig, config.launcher)
        gpus = gpu_count(config.device) if launcher.gpus is None else launcher.gpus
        carry_out(
            items,
            config,
            gpus or 1,
            cancelled=Path(stored["cancelled"]),
            beside=list(map(Path, stored["beside"])),
            patience=claims.EXPIRY,
            ends=time.time() + launcher.minutes * 60 - warning(launcher),
        )
        if any(not finished(item) and claims.holder(Path(item.record)) is None for item in items):
            os.kill(os.getpid(), signal.SIGUSR2)  # submitit's signal to put the task into the queue again

    def checkpoint(self) -> Any:
        """Return what submitit starts after a requeue: the same task, which goes on from the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Task(self.plan_file))


def warning(launcher: SlurmConfig) -> int:
    """Return the seconds before its end at which a task is warned to stop.

    From a fifth of its time on, submitit would take the end of the time for a preemption and start the task again for ever.
    """
    return min(180, launcher.minutes * 6)


def _refused(launcher: SlurmConfig, lines: Sequence[str]) -> ConfigError:
    """Return the error of a submission that Slurm refused with these lines, with what was asked for."""
    words = [line.split("sbatch: error: ")[1] for line in lines if "sbatch: error: " in line]
    keys = ("partition", "account", "gpus", "cpus", "memory_gb", "minutes", "options")
    asked = ", ".join(f"launcher.{key}={value}" for key in keys if (value := getattr(launcher, key)))
    return ConfigError(
        f"launcher (slurm): nothing was submitted; Slurm says: {' '.join(words or lines)}; correct what the cluster does not have "
        f"of {asked}."
    )


class SlurmArray(QueuedLauncher):
    """A job array of Slurm, found again by its job name from every node that has Slurm's commands."""

    folder: Path  # of the last submitted array: its plan and its logs

    @staticmethod
    def check(config: SlurmConfig) -> None:
        """Raise ConfigError for options that sbatch would not take, or that the launcher sets itself."""
        sbatch.check(config)

    @property
    def name(self) -> str:
        """Return the job name, which stands for the sweep and its results folder."""
        return f"bench-{self.plan.sweep.name}-{_digest(Path(self.plan.config.results_dir))}"

    def submit(self, items: Sequence[Item]) -> None:
        """Submit an array for the runs.

        Raises EnvironmentBroken without Slurm or submitit, and ConfigError with Slurm's own words where it refuses; then
        nothing was submitted.
        """
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

        # Write the plan beside the logs, where every node reads it.
        launcher, cancelled = cast(SlurmConfig, self.plan.config.launcher), self.plan.cancel_file()
        self.folder = (cancelled.parent / f"{self.plan.sweep.name}-{uuid.uuid4().hex[:8]}").absolute()
        plan_file = self.folder / "plan.json"
        stored = {
            "cancelled": str(cancelled.absolute()),
            "items": [asdict(item) for item in items],
            "beside": list(map(str, self.plan.beside(items))),
        }
        write_atomically(plan_file, json.dumps(stored))

        # Submit the array.
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=launcher.requeues)
        cpus = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK'
        executor.update_parameters(
            job_name=self.name,
            signal_delay_s=warning(launcher),
            setup=[cpus, *launcher.setup],
            **sbatch.parameters(launcher),
        )
        try:
            with executor.batch():
                tasks = min(launcher.tasks, len(items))
                jobs = [executor.submit(Task(plan_file)) for _ in range(tasks)]
        except submitit.core.utils.FailedJobError as error:
            shutil.rmtree(self.folder)
            raise _refused(launcher, str(error).splitlines()) from error
        number = str(jobs[0].job_id).partition("_")[0]
        log.info(
            "submitted job %s: %d tasks for %d runs; its output is in %s; `status` follows it",
            *(number, len(jobs), len(items), self.folder),
        )

    def ending(self) -> Ending:
        """Return the last words of the jobs. The runs of killed jobs may succeed; an error would meet them again."""
        return Ending(ended.last_words(self.folder), retryable=ended.killed(self.folder))

    def jobs(self) -> list[Job] | None:
        """Return the sweep's jobs that wait or run: none where there is no Slurm, None if the queue does not answer."""
        answer = _squeue("--array", f"--name={self.name}", "--format=%i|%T|%R")
        return None if answer is None else [Job(*line.split("|", 2)) for line in answer]

    @classmethod
    def busy(cls, results_dir: Path) -> bool:
        """Return whether a job of any sweep of this results folder waits or runs, or the queue does not answer."""
        names = _squeue("--format=%j")
        return names is None or any(
            name.startswith("bench-") and name.endswith(_digest(results_dir)) for name in names
        )

    def cancel(self) -> int:
        """Take the sweep's jobs from the queue, stop those that run, and return how many there were."""
        jobs = self.jobs()
        if jobs:
            subprocess.run(["scancel", f"--user={os.getuid()}", f"--name={self.name}"], check=True)
        return len(jobs or [])

    def last_words(self) -> list[str]:
        """Return a line for each job of the sweep's newest array, empty if that left no run without a record."""
        folder = ended.newest(self.plan)
        return ended.last_words(folder) if folder else []


LAUNCHER = SlurmArray


def _digest(results_dir: Path) -> str:
    return sha256(str(results_dir.resolve()))[:8]


def _squeue(*arguments: str) -> list[str] | None:
    if shutil.which("squeue") is None:
        return []
    command = ["squeue", "--noheader", f"--user={os.getuid()}", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True)
    if "configuration source" in answer.stderr:  # Slurm is installed, but this machine belongs to no cluster
        return []
    if answer.returncode != 0:
        log.warning("the queue does not answer (%s)", answer.stderr.strip())
        return None
    return answer.stdout.split("\n")[:-1]
