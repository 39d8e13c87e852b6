"""How the jobs of a Slurm array ended, by their folder, their logs and Slurm itself."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from bench.sweep.plan import Item, Plan
from bench.sweep.worker import finished

SHOWN = 8  # jobs whose last words are shown


def newest(plan: Plan) -> Path | None:
    """Return the folder of the sweep's newest array, or None if there is none or all runs of it have records."""
    plans = (Path(plan.config.results_dir) / "jobs").glob(f"{plan.sweep.name}-{'[0-9a-f]' * 8}/plan.json")
    found = max(plans, key=lambda path: path.stat().st_mtime, default=None)
    if found is None or all(finished(Item(**item)) for item in json.loads(found.read_text())["items"]):
        return None
    return found.parent


def killed(folder: Path) -> bool:
    """Return whether a job of the array has no result: it was killed, or never began."""
    return any(not _result(folder, job).exists() for job in _jobs(folder))


def last_words(folder: Path) -> list[str]:
    """Return a line for each of the array's jobs, killed ones first: Slurm's state, the log's path and its last lines."""
    jobs = sorted(_jobs(folder), key=lambda job: _result(folder, job).exists())
    states = _states(jobs[0].partition("_")[0]) if jobs else {}
    lines = []
    for job in jobs[:SHOWN]:
        path = folder / f"{job}_0_log.err"
        lines.append(f"job {job} {states.get(job, 'is unknown to Slurm by now')}, {_end(path)}")
    return [*lines, *([f"{len(jobs) - SHOWN} more jobs: {folder}"] if len(jobs) > SHOWN else [])]


def _jobs(folder: Path) -> list[str]:
    """Return the numbers of the array's jobs, such as "12_0", from the files that submitit writes for each."""
    return sorted(path.name.removesuffix("_submitted.pkl") for path in folder.glob("*_submitted.pkl"))


def _result(folder: Path, job: str) -> Path:
    return folder / f"{job}_0_result.pkl"


def _end(path: Path) -> str:
    """Return the path of a job's log and its last lines, in one line."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4000))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return f"it has no log {path}"
    words = " / ".join(line.strip() for line in lines[-3:] if line.strip())
    return f"its log {path} ends: {''.join(sign if sign.isprintable() else ' ' for sign in words)}"


def _states(number: str) -> dict[str, str]:
    """Return the state and exit status of an array's jobs by their numbers, as far as Slurm remembers them.

    Many clusters keep no accounts that users may read. Then the controller answers, which forgets a job after minutes.
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
    """Return the output of a command of Slurm, "" where the command is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    answer = subprocess.run(command, capture_output=True, text=True)
    return answer.stdout if answer.returncode == 0 else ""
