"""One run in two processes is the run in one: the same batches, losses and answers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import store
from tests.support.commands import ROOT, run_bench


@pytest.mark.parametrize("device_batch", ["null", "2"])
def test_two_processes_train_as_one_does(tiny, steady_model, tmp_path, device_batch):
    """48 rows in batches of 10: the last of an epoch has 8; each process takes 5 and 4 of them, whole or in parts of 2."""
    steady = [*tiny, f"model.path={steady_model}", "embedding=dense", "training.batch_size=10"]
    alone = run_bench("run", *steady, f"results_dir={tmp_path}/one")
    assert alone.returncode == 0, alone.stderr
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "bench",
        "run",
    ]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    shared = subprocess.run(
        [*launcher, *steady, f"training.device_batch={device_batch}", f"results_dir={tmp_path}/two"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert shared.returncode == 0, shared.stderr
    (one,), (two,) = (store.read_all(Path(tmp_path, name))[0] for name in ("one", "two"))
    assert (one["training"]["processes"], two["training"]["processes"]) == (1, 2)
    assert one["run_id"] == two["run_id"] and two["training"]["effective_batch"] == 10
    np.testing.assert_allclose(two["training"]["curve"], one["training"]["curve"], atol=2e-5)
    assert one["metrics"] == two["metrics"]
