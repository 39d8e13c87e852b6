"""How the jobs of a Slurm array ended: what their folder, their logs and Slurm itself say about it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from bench.sweep.plan import Item, Plan
from bench.sweep.worker import finished

SHOWN = 8  # jobs whose last words are shown


def newest(plan: Plan) -> Path | None:
    """Return the folder of the sweep's newest array, or None if it has none or the array left no run undone."""
    plans = (Path(plan.config.results_dir) / "jobs").glob(f"{plan.sweep.name}-{'[0-9a-f]' * 8}/plan.json")
    found = max(plans, key=lambda path: path.stat().st_mtime, default=None)
    if found is None or all(finished(Item(**item)) for item in json.loads(found.read_text())["items"]):
        return None
    return found.parent


def killed(folder: Path) -> bool:
    """Return whether a job of the array ended without a word of its own: killed, or never begun."""
    return any(not _result(folder, job).exists() for job in _jobs(folder))


def last_words(folder: Path) -> list[str]:
    """Return how the array's jobs ended, one line each, killed ones first: Slurm's state, the log's last lines and its place."""
    jobs = sorted(_jobs(folder), key=lambda job: _result(folder, job).exists())
    states = _states(jobs[0].partition("_")[0]) if jobs else {}
    lines = []
    for job in jobs[:SHOWN]:
        path = folder / f"{job}_0_log.err"
        lines.append(f"job {job} {states.get(job, 'is unknown to Slurm by now')}, {_end(path)}")
    return [*lines, *([f"{len(jobs) - SHOWN} more jobs: {folder}"] if len(jobs) > SHOWN else [])]


def _jobs(folder: Path) -> list[str]:
    """Return the numbers of the array's jobs, such as "12_0", from the files that submitit made for each."""
    return sorted(path.name.removesuffix("_submitted.pkl") for path in folder.glob("*_submitted.pkl"))


def _result(folder: Path, job: str) -> Path:
    return folder / f"{job}_0_result.pkl"


def _end(path: Path) -> str:
    """Return the last lines of a job's log, in one line, and where it lies."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4000))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return f"it has no log {path}"
    said = " / ".join(line.strip() for line in lines[-3:] if line.strip())
    return f"its log {path} ends: {''.join(sign if sign.isprintable() else ' ' for sign in said)}"


def _states(number: str) -> dict[str, str]:
    """Return the state and exit status of an array's jobs by their numbers, of those that Slurm has not forgotten.

    Many clusters keep no accounts that users may read: then the controller is asked, which forgets a job after minutes.
    """
    accounts = _ask("sacct", "-n", "-X", "-P", f"--jobs={number}", "--format=JobID,State,ExitCode")
    fields = [line.split("|") for line in accounts.splitlines()]
    if not fields:
        shown = _ask("scontrol", "--oneliner", "show", "job", number)
        for job in (dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.splitlines()):
            task = f"{job['ArrayJobId']}_{job['ArrayTaskId']}" if "ArrayJobId" in job else job["JobId"]
            fields.append([task, job["JobState"], job["ExitCode"]])
    return {job: f"{state}, exit status {status}" for job, state, status in fields}


def _ask(*command: str) -> str:
    """Return what a command of Slurm prints; nothing where there is no such command, or it refuses."""
    if shutil.which(command[0]) is None:
        return ""
    asked = subprocess.run(command, capture_output=True, text=True)
    return asked.stdout if asked.returncode == 0 else ""
