"""Shared pieces: a tiny model on disk, with MiniLM's real tokenizer, that a run loads as any local model."""

import json
import os
import shutil
from pathlib import Path

import pytest

# Of `make test ARGS=..`, which every make that a test starts would take; container images set the last, and every process that a
# test starts would compile what it imports.
for value in ("MAKEFLAGS", "ARGS", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(value, None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if name := os.environ.get(
    "PYTEST_XDIST_WORKER"
):  # a core each: on shared ones the threads of all processes wait for one another
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(name.removeprefix("gw")) % len(cores)]})


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one more than there are cores: tests of Slurm, of leases and of kills wait most of the time."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where there is none."""
    of_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if of_gpu and not torch_sees_cuda():
        for item in of_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def torch_sees_cuda() -> bool:
    """Return whether torch finds a CUDA device; imports torch."""
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a two-layer BERT of random weights, 30,522 x 24, and MiniLM's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from bench.models.location import locate
    from bench.settings.compose import compose_config

    folder = tmp_path_factory.mktemp("tiny-model")
    packaged, _ = locate(compose_config(["model=all-minilm-l6-v2"]).model)
    AutoTokenizer.from_pretrained(packaged).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def steady_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same model without dropout, so that its training depends on order and weights alone."""
    folder = tmp_path_factory.mktemp("steady-model") / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    return folder


@pytest.fixture
def tiny(tiny_model: Path, tmp_path: Path) -> list[str]:
    """Return the overrides of a run that takes about a second and writes below `tmp_path`."""
    return [
        "model.name=tiny",
        "model.source=local",
        f"model.path={tiny_model}",
        "model.sha256=null",
        "model.width=24",
        "model.pooling=null",
        "model.revision=null",
        "task=lexical_sentiment",
        "training.max_steps=6",
        "training.batch_size=8",
        "training.max_train_examples=48",
        "device=cpu",
        f"results_dir={tmp_path}/results",
        f"cache_dir={tmp_path}/cache",
    ]


@pytest.fixture
def tiny_masked_lm(tiny: list[str], tiny_model: Path, tmp_path: Path) -> list[str]:
    """Return the same overrides for a model of random weights with a masked-LM head."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = tmp_path / "masked"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    BertForMaskedLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return [*tiny, f"model.path={folder}"]


@pytest.fixture(scope="session")
def tokenizers_folder() -> Path:
    folder = (
        Path(
            os.environ.get("BENCH_DATA_ROOT", Path(__file__).resolve().parents[2] / "shared" / "data")
        ).parent
        / "tokenizers"
    )
    if not (folder / "xlm-roberta-base").is_dir():
        pytest.skip("no real tokenizers beside the data: set BENCH_DATA_ROOT")
    return folder
