"""How long a user waits: from the start of a process to its first training step, and from a run to the next."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch

from bench.errors import BenchError
from bench.models.architectures import build, placeholder_tokenizer
from bench.runs.provenance import ROOT


class Startup(TypedDict):
    # From the start of the process, with everything cached on disk, Python's bytecode too.
    first_step_seconds: float | None
    # From the end of a run to the first step of the next, in the same worker.
    next_run_seconds: float | None
    error: str | None


def startup(device: torch.device) -> Startup:
    """Return the seconds of `bench run` and `bench sweep` in new processes, on MiniLM's architecture."""
    try:
        first, following = _measured(device)
    except BenchError as error:
        return {"first_step_seconds": None, "next_run_seconds": None, "error": str(error)}
    return {"first_step_seconds": first, "next_run_seconds": following, "error": None}


def _measured(device: torch.device) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        _save_model(Path(folder) / "model")
        common = [
            *("model.name=random", "model.source=local", f"model.path={folder}/model", "model.pooling=null"),
            *("model.sha256=null", "model.revision=null", "task=lexical_sentiment", f"device={device.type}"),
            *(f"results_dir={folder}/results", f"cache_dir={folder}/cache"),
            "task.splits.test='test[:8]'",  # what comes after the steps is not measured
        ]
        environment = dict(os.environ)
        # Container images set this: each process would compile every module.
        if environment.pop("PYTHONDONTWRITEBYTECODE", None):
            environment["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"

        # A run that fills the caches, a run that uses them, and two runs in a worker.
        run, step = ["run", *common, "embedding=dense", "training.max_steps=4"], "| step 1/"
        _times([*run, "seed=0"], [step], environment)
        (first,) = _times([*run, "seed=1"], [step], environment)
        sweep = ["sweep", *common, "sweep=smoke", "workers=1"]
        _, end, second = _times(sweep, [step, "1 of 2 runs ended", step], environment)
        return first, second - end


def _save_model(folder: Path) -> None:
    model = build("minilm", "dense", torch.device("cpu"))
    model.save_pretrained(folder)
    placeholder_tokenizer(0, model.config.vocab_size).save_pretrained(folder)


def _times(arguments: Sequence[str], words: Sequence[str], environment: dict[str, str]) -> list[float]:
    """Return when, in seconds from the start of `python -m bench <arguments>`, its log first holds each of `words` in turn."""
    begun, times, lines = time.perf_counter(), list[float](), list[str]()
    command = [sys.executable, "-m", "bench", *arguments]
    silent, pipe = subprocess.DEVNULL, subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=silent, stderr=pipe, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if len(times) < len(words) and words[len(times)] in line:
            times.append(time.perf_counter() - begun)
    if process.wait() != 0 or len(times) < len(words):
        raise BenchError(f"`bench {arguments[0]}` failed while its start was measured: {''.join(lines[-3:])}")
    return times
