"""One run in two processes is the run in one: the same batches, losses and answers."""

import os
import subprocess
import sys

import numpy as np

from bench import store
from bench.cli.main import main
from tests.support.commands import ROOT


def test_two_processes_train_as_one_does(tiny, steady_model, tmp_path):
    """48 rows in batches of 10: the last of an epoch has 8; each process takes 5 and 4 of them, whole or in parts of 2."""
    steady = [*tiny, f"model.path={steady_model}", "embedding=dense", "training.batch_size=10"]
    assert main(["run", *steady, f"results_dir={tmp_path}/alone"]) == 0
    (one,), _ = store.read_all(tmp_path / "alone")
    assert one["training"]["processes"] == 1

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for device_batch in ("null", "2"):
        results = tmp_path / f"device-batch-{device_batch}"
        keys = [*steady, f"training.device_batch={device_batch}", f"results_dir={results}"]
        shared = subprocess.run(
            [*torchrun, "-m", "bench", "run", *keys],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        assert shared.returncode == 0, shared.stderr
        (two,), _ = store.read_all(results)
        assert two["training"]["processes"] == 2 and two["training"]["effective_batch"] == 10
        assert one["run_id"] == two["run_id"] and one["metrics"] == two["metrics"]
        np.testing.assert_allclose(two["training"]["curve"], one["training"]["curve"], atol=2e-5)
