"""Pretraining: what it learns, what is kept and reused, interruptions, several models and processes, what is refused."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from bench import store
from bench.errors import ConfigError, DataError
from bench.runs.execute import run
from bench.runs.identity import prepare
from bench.runs.loading import pretraining_of
from bench.settings.compose import compose_config
from bench.training.checkpoint import Checkpoint
from bench.training.pretraining import stage as pretraining
from bench.training.pretraining.masked_rows import MaskedRows
from bench.training.pretraining.stage import pretrain_together
from tests.support.commands import ROOT
from tests.support.pretraining import VOCAB, WORDS, overrides, tokenizer
from tests.support.training import tensors_sha256

CPU = torch.device("cpu")


@pytest.fixture
def little(tmp_path):
    return overrides(tmp_path)


def stage(*keys: str) -> pretraining.Pretraining:
    return pretraining_of(prepare(compose_config(keys)), CPU)


def pretrained(*keys: str) -> dict[str, object]:
    (facts,) = pretrain_together([stage(*keys)])
    return facts


@pytest.mark.parametrize("method", [["embedding=dense"], ["embedding=subspace", "assignment=sequential"]])
def test_the_loss_falls_from_that_of_any_token_to_that_of_the_words_in_the_text(little, method):
    facts = pretrained(*little, *method, "pretraining.steps=80", "pretraining.learning_rate=1e-2")
    curve = [loss for _, loss in facts["curve"]]
    assert (
        curve[0] > np.log(VOCAB) - 0.5 and max(curve[-1], facts["validation_loss"]) < np.log(len(WORDS)) + 0.2
    )
    assert facts["perplexity"] == pytest.approx(np.exp(facts["validation_loss"]))


def test_a_pretrained_model_is_made_once_and_serves_other_tasks_and_seeds(little, tmp_path):
    keys = [*little, "embedding=subspace", "assignment=random"]
    more = ([], ["seed=1"], ["task=lexical_entailment"], ["pretraining.seed=1"])
    first, again, other, apart = (run(compose_config([*keys, *changes])) for changes in more)
    parts = [record["pretraining"] for record in (first, again, other, apart)]
    assert [record["status"] for record in (first, again, other, apart)] == ["ok"] * 4
    assert [part["reused"] for part in parts] == [False, True, True, False]
    files = [*(tmp_path / "cache/pretrained").glob("*.safetensors")]
    assert {part["sha256"] for part in parts} == {tensors_sha256(file) for file in files}
    assert len({part["sha256"] for part in parts[:3]}) == 1 and len(files) == 2
    # The last batch of a pass through the rows can be smaller.
    assert parts[0]["tokens"] % 32 == 0 and 23 * 8 < parts[0]["tokens"] / 32 <= 24 * 8
    assert parts[0]["unknown"] == 0
    assert first["config"]["pretraining"]["corpus"] == parts[0]["text_sha256"]
    assert first["model"]["weights"] == "none" and first["fit"]["relative_error"] is None
    assert len({first["run_id"], again["run_id"], other["run_id"], apart["run_id"]}) == 4

    # A second making gives the same file; the run trains on what was pretrained.
    elsewhere = run(compose_config([*keys, f"cache_dir={tmp_path}/b", f"results_dir={tmp_path}/b"]))
    assert elsewhere["training"]["curve"] == first["training"]["curve"] != apart["training"]["curve"]
    kept = [key for key in keys if not key.startswith("pretraining")]
    from_nothing = run(compose_config(kept))
    assert from_nothing["status"] == "ok" and "pretraining" not in from_nothing


def test_only_what_decides_the_pretrained_model_is_part_of_its_key(little, tmp_path):
    keys = [*little, "embedding=subspace", "assignment=random", "assignment.seed=null"]
    assert (
        len(
            {
                stage(*keys, *more).key
                for more in ([], ["seed=3"], ["model.pooling=mean"], ["training.epochs=9"])
            }
        )
        == 1
    )
    (tmp_path / "other.txt").write_text((tmp_path / "text.txt").read_text() + "\nriver")
    others = (
        ["pretraining.seed=1"],
        ["pretraining.steps=9"],
        ["embedding.subspaces=2"],
        ["assignment.seed=5"],
        ["training.dtype=bf16"],
        ["training.engine=eager"],
        [f"pretraining.corpus={tmp_path}/other.txt"],
        ["model.architecture.num_hidden_layers=1"],
    )
    assert len({stage(*keys, *more).key for more in others} | {stage(*keys).key}) == 1 + len(others)


def interrupted(monkeypatch, at: int) -> list[int]:
    """Let forward pass number `at` raise, once; return the list that grows with each pass."""
    passes, forward = [], MaskedRows.forward

    def counted(self, *args, **inputs):
        passes.append(int(inputs["step"]))
        if len(passes) == at:
            raise KeyboardInterrupt
        return forward(self, *args, **inputs)

    monkeypatch.setattr(pretraining, "Checkpoint", partial(Checkpoint, every=0.0))
    monkeypatch.setattr(MaskedRows, "forward", counted)
    return passes


def test_an_interrupted_pretraining_goes_on_and_is_to_the_last_bit_an_uninterrupted_one(
    little, tmp_path, monkeypatch
):
    keys = [*little, "embedding=subspace", "assignment=sequential"]
    expected = pretrained(*keys, f"cache_dir={tmp_path}/uninterrupted")
    passes = interrupted(monkeypatch, at=11)
    with pytest.raises(KeyboardInterrupt):
        pretrained(*keys)
    (kept,) = (tmp_path / "cache/pretrained").glob("*.checkpoint")
    again = pretrained(*keys)
    assert again["sha256"] == expected["sha256"]
    one, two = (tmp_path / name / "pretrained" for name in ("uninterrupted", "cache"))
    assert tensors(one) == tensors(two) and again["curve"] == expected["curve"]
    assert passes == [*range(11), *range(10, 24), -1] and not kept.exists()


def tensors(folder) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    (path,) = folder.glob("*.safetensors")
    return {name: value.tobytes() for name, value in load_file(path).items()}


def test_a_checkpoint_of_another_pretraining_is_ignored(little, tmp_path, monkeypatch, caplog):
    keys = [*little, "embedding=dense"]
    expected = pretrained(*keys, f"cache_dir={tmp_path}/uninterrupted")
    interrupted(monkeypatch, at=11)
    with pytest.raises(KeyboardInterrupt):
        pretrained(*keys, "pretraining.learning_rate=1e-2")
    (other,) = (tmp_path / "cache/pretrained").glob("*.checkpoint")
    other.rename(stage(*keys).path.with_suffix(".checkpoint"))
    assert pretrained(*keys)["curve"] == expected["curve"]
    assert "it is of another training" in caplog.text


def test_models_pretrained_side_by_side_are_each_what_they_are_alone(little, tmp_path):
    methods = [
        ["embedding=dense"],
        ["embedding=subspace", "assignment=sequential"],
        ["embedding=dense", "pretraining.seed=1"],
    ]
    together = pretrain_together([stage(*little, *method) for method in methods])
    alone = [pretrained(*little, *method, f"cache_dir={tmp_path}/alone") for method in methods]
    assert [facts["runs_at_once"] for facts in (*together, *alone)] == [3, 3, 3, 1, 1, 1]
    assert [facts["curve"] for facts in together] == [facts["curve"] for facts in alone]
    assert [f["validation_loss"] for f in together] == [f["validation_loss"] for f in alone]


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["graph", "compile"])
@pytest.mark.parametrize(
    "method",
    [
        ["embedding=dense"],
        ["embedding=subspace", "assignment=sequential"],
        ["embedding=hashing", "embedding.rows=40"],
    ],
)
@pytest.mark.parametrize("at_once", [2**28, 2**12])  # logits whole, and in parts
def test_the_whole_step_is_captured_and_trains_as_the_eager_one(
    little, tmp_path, engine, method, at_once, monkeypatch
):
    monkeypatch.setattr("bench.training.pretraining.decoder.AT_ONCE", at_once)

    def trained(choice: str) -> dict:
        gpu = torch.device("cuda")
        own = [f"training.engine={choice}", f"cache_dir={tmp_path}/{choice}", "device=cuda"]
        (facts,) = pretrain_together([pretraining_of(prepare(compose_config([*little, *method, *own])), gpu)])
        return facts

    captured, eager = trained(engine), trained("eager")
    assert (captured["engine"], captured["fallback"]) == (engine, None)
    np.testing.assert_allclose(captured["curve"], eager["curve"], rtol=2e-2)


def test_two_processes_pretrain_as_one_does(little, tmp_path):
    keys = [*little, "embedding=dense", "pretraining.batch_size=10"]
    assert run(compose_config([*keys, f"cache_dir={tmp_path}/alone", f"results_dir={tmp_path}/alone"]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    shared = subprocess.run(
        [*torchrun, "-m", "bench", "run", *keys],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert shared.returncode == 0, shared.stderr
    (one,), (two,) = (store.read_all(tmp_path / name)[0] for name in ("alone", "results"))
    assert (one["pretraining"]["processes"], two["pretraining"]["processes"]) == (1, 2)
    np.testing.assert_allclose(two["pretraining"]["curve"], one["pretraining"]["curve"], atol=2e-5)
    assert two["pretraining"]["validation_loss"] == pytest.approx(
        one["pretraining"]["validation_loss"], abs=2e-5
    )


def test_a_loss_that_is_not_finite_is_recorded(little, tmp_path):
    record = run(compose_config([*little, "embedding=dense", "pretraining.learning_rate=1e30"]))
    assert record["status"] == "diverged"
    assert "The pretraining's training loss is no longer a finite number after" in record["error"]["message"]
    assert "lower pretraining.learning_rate" in record["error"]["message"]
    assert not list((tmp_path / "cache/pretrained").glob("*.safetensors"))


REFUSED = [
    (
        ["model=all-minilm-l6-v2"],
        "starts from random weights, but model=all-minilm-l6-v2 has its own.*recovery=masked_lm",
    ),
    (["pretraining.corpus=null"], "pretraining.corpus is not set"),
    (["embedding=quantised"], "embedding=quantised is never trained, and model=little has no weights"),
    (["recovery=distil"], "recovery needs a finished dense model, and model=little has no weights"),
    (["training.teacher=dense"], "training.teacher needs a finished dense model"),
    (
        ["assignment=contextual"],
        "assignment=contextual clusters a finished model's.*assignment.model=all-minilm-l6-v2",
    ),
    (["pretraining.length=600"], r"pretraining.length \(600\) is more than the 512 positions"),
    (["pretraining.steps=0"], "pretraining.steps"),
    (["model.weights=pretrained"], "model.weights .* and model.architecture .* contradict each other"),
    (["model.architecture.model_type=bret"], "model.architecture .* makes no configuration"),
]


@pytest.mark.parametrize(("keys", "words"), REFUSED)
def test_what_cannot_be_pretrained_is_refused_before_any_work(little, keys, words):
    drop = "model=all-minilm-l6-v2" in keys
    kept = [key for key in little if not (drop and key.startswith("model"))]
    dense = [] if "assignment=contextual" in keys else ["embedding=dense"]
    with pytest.raises(ConfigError, match=words):
        prepare(compose_config([*kept, *dense, *keys]))


def test_a_folder_without_a_tokenizer_is_refused(little, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"model.path \(.*empty\): no tokenizer in"):
        prepare(compose_config([*little, "embedding=dense", f"model.path={tmp_path}/empty"]))


def test_a_tokenizer_without_a_mask_token_is_refused(little):
    one = stage(*little, "embedding=dense")
    without = tokenizer()
    without.mask_token = None
    with pytest.raises(ConfigError, match="needs a mask_token, which the tokenizer of model.path .* lacks"):
        pretrain_together([replace(one, tokenizer=without)])


def test_a_text_that_fills_no_rows_or_is_of_another_script_is_refused(little, tmp_path):
    (tmp_path / "short.txt").write_text("the film is a joy")
    with pytest.raises(DataError, match=r"short.txt\): its 6 tokens fill 0 rows of 32"):
        pretrained(*little, "embedding=dense", f"pretraining.corpus={tmp_path}/short.txt")
    (tmp_path / "thai.txt").write_text("ภาพยนตร์ เรื่อง นี้\n" * 90)
    with pytest.raises(
        DataError, match=r"thai.txt\): 3,?\d* of its .* tokens are unknown|270 of its 360 tokens are unknown"
    ):
        pretrained(*little, "embedding=dense", f"pretraining.corpus={tmp_path}/thai.txt")
    (tmp_path / "some.txt").write_text((tmp_path / "text.txt").read_text() + "\nunheard of" * 100)
    facts = pretrained(*little, "embedding=dense", f"pretraining.corpus={tmp_path}/some.txt")
    assert 0 < facts["unknown"] < 0.1


def test_codes_come_from_another_finished_model_of_the_same_vocabulary(tmp_path):
    keys = [key for key in overrides(tmp_path) if not key.startswith(("model.source", "model.path"))]
    of_minilm = [f"model.{key}=30522" for key in ("vocab_size", "architecture.vocab_size")]
    with pytest.raises(
        ConfigError, match="assignment.model .all-minilm-l6-v2. has another vocabulary than model=little"
    ):
        pretrained(*overrides(tmp_path), "assignment=pq", "assignment.model=all-minilm-l6-v2")
    clustered = [
        "assignment=pq",
        "embedding.subspaces=2",
        "embedding.rows=8",
        "assignment.model=all-minilm-l6-v2",
    ]
    one = run(compose_config([*keys, *of_minilm, *clustered, "pretraining.steps=2"]))
    assert one["config"]["assignment"]["model"]["sha256"].startswith("53aa51172d")

    # They are MiniLM's own codes.
    own = [key for key in keys if not key.startswith(("model", "pretraining"))]
    theirs = run(compose_config([*own, *clustered[:3]]))
    assert theirs["fit"]["codes_sha256"] == one["fit"]["codes_sha256"]


def test_the_vocabulary_of_the_little_model_is_as_large_as_it_says():
    assert len(tokenizer()) == VOCAB
