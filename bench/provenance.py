"""Where a record comes from: code, packages, machine."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "tokenizers",
    "hydra-core",
    "scikit-learn",
    "numpy",
)
ROOT = Path(__file__).resolve().parent.parent


def _state() -> tuple[str | None, bool | None]:
    """Return the commit, and whether tracked code differs from it; None for what git does not tell."""
    try:
        done = subprocess.run(
            [
                "git",
                "-C",
                str(ROOT),
                "status",
                "--porcelain=v2",
                "--branch",
                "--untracked-files=no",
                "--",
                ".",
                ":!results",
            ],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    if done.returncode != 0:
        return None, None
    lines = done.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), None)
    return None if commit == "(initial)" else commit, any(not line.startswith("#") for line in lines)


@cache
def provenance(device: torch.device) -> dict[str, Any]:
    """Return commit, versions and machine of this process; `dirty` says whether tracked code was changed."""
    commit, dirty = _state()
    return {
        "commit": commit,
        "dirty": dirty,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "command": without_folders(["python", "-m", "bench", *sys.argv[1:]])
        if sys.argv[0].endswith("__main__.py")
        else None,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def without_folders(words: Sequence[str]) -> str:
    """Return the words as a shell command, with absolute paths cut to their last part: a record is published, and folders name people."""
    return shlex.join(re.sub(r"(?<![\w.])/(?:[^/]+/)+", ".../", word) for word in words)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
