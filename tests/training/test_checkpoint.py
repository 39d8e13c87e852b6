"""An interrupted training goes on from its checkpoint, and ends as if nothing had happened."""

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from bench.runs.execute import run
from bench.settings.compose import compose_config
from bench.training import recoveries
from bench.training.checkpoint import Checkpoint, load_state, state_of
from bench.training.engine import make_engine
from bench.training.finetune import Trainee, finetune_together
from bench.training.fused_adamw import adamw
from bench.training.recoveries.distil import Distance
from tests.support.commands import ROOT
from tests.support.training import finetune
from tests.training.test_engine import CONFIG, STEPS, examples, lane, model, weights_of


class Watched(nn.Module):
    """A classifier that counts its forward passes, and calls `event` in one of them."""

    def __init__(self, event=None, at=0, device="cpu"):
        super().__init__()
        self.inner, self.event, self.at, self.passes = model(device, dropout=0.1), event, at, 0

    def forward(self, **inputs):
        self.passes += 1
        if self.passes == self.at:
            self.event()
        return self.inner(**inputs)


def interrupt():
    raise KeyboardInterrupt


def trained(module, checkpoint=None, dtype="fp32", **changes):
    """Return the curve and the weights."""
    config = replace(CONFIG, **changes)
    outcome = finetune(module, examples(), config, seed=0, dtype=dtype, name="t", checkpoint=checkpoint)
    return outcome.curve, weights_of(module)


def same(one, other):
    return one[0] == other[0] and torch.equal(one[1], other[1])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("at", [1, 11, STEPS])
def test_an_interrupted_training_goes_on_and_is_to_the_last_bit_an_uninterrupted_one(tmp_path, dtype, at):
    checkpoint = Checkpoint(tmp_path / "t.checkpoint", "key", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(Watched(interrupt, at), checkpoint, dtype)
    again = Watched()
    assert same(trained(again, checkpoint, dtype), trained(Watched(), dtype=dtype))
    assert again.passes == STEPS - at + 1
    after = Watched()  # killed after the last step, before the caller removes the checkpoint
    assert same(trained(after, checkpoint, dtype), trained(Watched(), dtype=dtype))
    assert after.passes == 0


def test_a_killed_training_goes_on(tmp_path):
    script = (
        "import os, signal; from tests.training.test_checkpoint import *;"
        f"checkpoint = Checkpoint(Path({str(tmp_path / 't.checkpoint')!r}), 'key', every=0.0);"
        "trained(Watched(lambda: os.kill(os.getpid(), signal.SIGKILL), 9), checkpoint)"
    )
    script = f"from pathlib import Path; {script}"
    child = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert child.returncode == -signal.SIGKILL
    again = Watched()
    assert same(trained(again, Checkpoint(tmp_path / "t.checkpoint", "key")), trained(Watched()))
    assert again.passes == STEPS - 8


def test_trainings_that_go_on_from_different_steps_are_each_what_they_are_alone(tmp_path):
    def trainee(module, seed):
        checkpoint = Checkpoint(tmp_path / f"{seed}.checkpoint", str(seed), every=0.0)
        return Trainee(module, examples(), CONFIG, seed, "t", checkpoint=checkpoint)

    for seed, at in ((1, 8), (2, 8), (3, 15)):
        with pytest.raises(KeyboardInterrupt):
            finetune_together([trainee(Watched(interrupt, at), seed)], "fp32")
    modules = {seed: Watched() for seed in range(4)}
    outcomes = finetune_together([trainee(module, seed) for seed, module in modules.items()], "fp32")
    assert [outcome.runs_at_once for outcome in outcomes] == [1, 2, 2, 1]
    assert [module.passes for module in modules.values()] == [STEPS, STEPS - 7, STEPS - 7, STEPS - 14]
    for (seed, module), outcome in zip(modules.items(), outcomes, strict=True):
        alone = Watched()
        expected = finetune(alone, examples(), CONFIG, seed=seed, dtype="fp32", name="t")
        assert same((outcome.curve, weights_of(module)), (expected.curve, weights_of(alone)))


@pytest.mark.parametrize("flaw", ["of another training", "cut", "no file"])
def test_a_checkpoint_of_another_training_or_a_damaged_one_is_ignored(tmp_path, caplog, flaw):
    checkpoint = Checkpoint(tmp_path / "t.checkpoint", "key", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(Watched(interrupt, 11), checkpoint)
    if flaw == "of another training":
        checkpoint = replace(checkpoint, key="other")
    elif flaw == "cut":
        checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-100])
    else:
        checkpoint.remove()
    again = Watched()
    assert same(trained(again, checkpoint), trained(Watched())) and again.passes == STEPS
    assert sum(str(checkpoint.path) in line for line in caplog.messages) == (flaw != "no file")


def test_without_room_for_a_checkpoint_the_training_goes_on_and_the_former_one_stays(tmp_path, caplog):
    """Files are limited to 10 kB from step 6 to step 10, as on a full disk."""
    checkpoint = Checkpoint(tmp_path / "t.checkpoint", "key", every=0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(Watched):
        def forward(self, **inputs):
            if self.passes == 5:
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
            if self.passes == 10:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                assert int(checkpoint.read()["counter"]) == 5
            return super().forward(**inputs)

    try:
        assert same(trained(Full(), checkpoint), trained(Watched()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refusals = [
        line for line in caplog.messages if line.startswith("No checkpoint") and "t.checkpoint" in line
    ]
    assert len(refusals) == 5 and [file.name for file in tmp_path.iterdir()] == ["t.checkpoint"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_state_of_fused_adamw_serves_itself_to_the_last_bit_and_torchs_optimizer(dtype):
    def made(fused, state=None):
        own = lane(model(), examples(), dtype)
        if fused:
            own.fuse_optimizer(adamw)
        if state:
            load_state(own, state)
        return own

    def steps(own, numbers):
        for number in numbers:
            own.step(int(own.schedule.lengths[number]))
        return own.losses[numbers.stop - 1]

    first = made(True)
    steps(first, range(9))
    state = {name: value.clone() for name, value in state_of(first).items()}
    expected = steps(first, range(9, 15))
    assert torch.equal(steps(made(True, state), range(9, 15)), expected)
    torch.testing.assert_close(steps(made(False, state), range(9, 15)), expected, rtol=1e-3, atol=1e-4)
    assert not torch.isclose(steps(made(True), range(9, 15)), expected, rtol=1e-3, atol=1e-4)


def test_an_interrupted_recovery_goes_on(tiny, tmp_path, monkeypatch):
    overrides = [
        *tiny,
        "assignment=sequential",
        "recovery=distil",
        "recovery.steps=6",
        "recovery.batch_size=8",
    ]
    expected = run(compose_config([*overrides, f"cache_dir={tmp_path}/uninterrupted"]))
    monkeypatch.setattr(recoveries, "Checkpoint", partial(Checkpoint, every=0.0))
    calls, distance = [], Distance.forward

    def counted(self, *inputs):
        calls.append(self)
        if len(calls) == 3 * 4 + 1:  # three layers
            raise KeyboardInterrupt
        return distance(self, *inputs)

    monkeypatch.setattr(Distance, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        run(compose_config(overrides))
    (left,) = (tmp_path / "cache" / "recovered").glob("*.checkpoint")
    found = run(compose_config(overrides))
    assert found["recovery"]["curve"] == expected["recovery"]["curve"]
    assert (
        found["metrics"] == expected["metrics"]
        and found["training"]["curve"] == expected["training"]["curve"]
    )
    assert len(calls) == 3 * 6 + 1 and not left.exists()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("choice", ["eager", "graph", "compile"])
def test_a_state_is_loaded_after_the_capture(choice, dtype):
    def made():
        own = lane(model("cuda", dropout=0.1), examples("cuda"), dtype)
        engine, fallback = make_engine(choice, [own])
        assert fallback is None
        return own, engine

    (first, engine), (second, other) = made(), made()
    for step in range(9):
        engine.step(step)
    load_state(second, state_of(first))
    for step in range(9, STEPS):
        engine.step(step)
        other.step(step)
    torch.cuda.synchronize()
    torch.testing.assert_close(second.losses, first.losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights_of(second.model), weights_of(first.model), rtol=1e-3, atol=1e-4)
