"""The command line, started as a user would start it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_bench(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Return the finished `python -m bench <arguments>`, as a user would start it."""
    return subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, **options)  # type: ignore[call-overload,no-any-return]
