"""What `bench plan` and `bench run` do before their answer and their first step, so that these come soon."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.cuda_context import create_meanwhile

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import sys, torch
from bench.runs.identity import prepare
from bench.runs.loading import load
from bench.settings.compose import compose_config
load([prepare(compose_config(sys.argv[1:]))], torch.device("cpu"))
print({"datasets", "evaluate", "pandas", "sklearn"} & sys.modules.keys())
"""


PLAN = """
import sys
from bench.cli.main import main
main(["plan", "sweep=demo"])
print({"transformers", "scipy", "datasets", "evaluate", "pandas", "sklearn"} & sys.modules.keys())
"""


def test_a_plan_is_made_without_the_packages_that_train_and_evaluate() -> None:
    done = subprocess.run([sys.executable, "-c", PLAN], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_a_run_loads_what_is_cached_without_the_packages_that_its_evaluation_needs(tiny: list[str]) -> None:
    command = [sys.executable, "-c", LOAD, *tiny, "embedding=dense"]
    for _ in range(2):  # the first fills the caches
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr


def test_without_a_driver_no_context_is_created_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    raised = list[object]()
    monkeypatch.setattr("threading.excepthook", raised.append)
    create_meanwhile().join()
    assert not raised and os.environ["CUDA_MODULE_LOADING"]


@pytest.mark.gpu
def test_the_context_is_the_one_that_torch_uses() -> None:
    """The driver counts the context as active before torch touches the GPU, and torch then computes in it."""
    code = """
import ctypes, sys
from bench.cli.cuda_context import create_meanwhile
create_meanwhile().join()
assert "torch" not in sys.modules
flags, active = ctypes.c_uint(), ctypes.c_int()
ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
import torch
print(active.value, torch.ones(2, device="cuda").sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["1", "2.0"], done.stderr
