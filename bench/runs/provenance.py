"""The origin of a record: code, packages, machine."""

import logging
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

PACKAGES = [
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "tokenizers",
    "hydra-core",
    "scikit-learn",
    "numpy",
]
ROOT = Path(__file__).resolve().parents[2]
# A git hook sets these variables, and git would answer for the hook's repository.
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")

log = logging.getLogger("bench")


def _state() -> tuple[str | None, bool | None]:
    """Return the commit, and whether tracked code differs from it; None for what git does not tell.

    Git refuses clones of another user, whose settings could run programs. It may read this clone, as the code in it is
    running already. If a clone's commit stays unknown, a warning says why.
    """
    try:
        git = ["git", "--no-optional-locks", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
        status = ["status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ".", ":!results"]
        done = subprocess.run(
            [*git, *status],
            capture_output=True,
            text=True,
            timeout=20,
            env={key: value for key, value in os.environ.items() if key not in ELSEWHERE},
        )
        done.check_returncode()
    except (OSError, subprocess.SubprocessError) as error:
        if (ROOT / ".git").exists():
            reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
            log.warning("provenance.commit stays unknown: git does not read %s (%s)", ROOT, reason)
        return None, None
    lines = done.stdout.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), None)
    return None if commit == "(initial)" else commit, any(not line.startswith("#") for line in lines)


@cache
def provenance(device: torch.device) -> dict[str, Any]:
    """Return commit, versions and machine of this process; `dirty`: tracked code differs from the commit."""
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
    """Return the words as a shell command, absolute paths cut to their last part.

    Records are published, and folders name people.
    """
    return shlex.join(re.sub(r"(?<![\w.])/(?:[^/]+/)+", ".../", word) for word in words)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
