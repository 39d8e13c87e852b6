"""Where a record comes from: code, packages, machine."""

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "datasets", "evaluate", "tokenizers", "hydra-core", "scikit-learn", "numpy")
ROOT = Path(__file__).resolve().parent.parent


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def provenance(device: torch.device) -> dict[str, Any]:
    """Return commit, versions and machine of this process; `dirty` says whether tracked code was changed."""
    status = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")
    installed = {name: metadata.version(name) for name in PACKAGES if _installed(name)}
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "packages": installed,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "command": without_folders(" ".join(["python -m bench", *sys.argv[1:]])) if sys.argv[0].endswith("__main__.py") else None,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def without_folders(command: str) -> str:
    """Return the command with its absolute paths cut to their last part: records are published, and folders name people."""
    return re.sub(r"(?<![\w.])/(?:[^\s/'\"]+/)+", ".../", command)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
