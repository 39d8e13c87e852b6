"""Fetched once from a hub (here one on the loopback), then used without any."""

import os
import shutil
from pathlib import Path

import datasets
import pytest

from bench.models.location import locate
from bench.settings.compose import compose_config
from bench.store import read_all
from bench.tasks.specs import read_task
from tests.support.commands import run_bench
from tests.support.hub import hub

MODEL = "distilbert-base-uncased"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a hub's folder with 24 rows of MRPC and a model; beside its weights a pickle, which nobody may fetch."""
    root = tmp_path_factory.mktemp("hub")
    glue = root / "datasets" / "nyu-mll" / "glue"
    rows = {
        "sentence1": [f"a dog sleeps {i}" for i in range(24)],
        "sentence2": [f"nobody sleeps {i}" for i in range(24)],
        "label": [i % 2 for i in range(24)],
        "idx": list(range(24)),
    }
    card = ["---", "configs:", "- config_name: mrpc", "  data_files:"]
    for split in ("train", "validation", "test"):
        made = datasets.Dataset.from_dict(rows).cast_column(
            "label", datasets.ClassLabel(names=["not_equivalent", "equivalent"])
        )
        (glue / "mrpc").mkdir(parents=True, exist_ok=True)
        made.to_parquet(glue / "mrpc" / f"{split}-00000-of-00001.parquet")
        card += [f"  - split: {split}", f"    path: mrpc/{split}-*"]
    (glue / "README.md").write_text("\n".join([*card, "---", ""]))
    config = compose_config([f"model={MODEL}"]).model
    repository = root / "models" / str(config.path)
    packaged, _ = locate(compose_config(["model=all-minilm-l6-v2"]).model)
    shutil.copytree(packaged, repository, ignore=shutil.ignore_patterns("*.safetensors", "*.onnx"))
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
    ).save_pretrained(repository)
    (repository / "pytorch_model.bin").write_bytes(b"a pickle")
    return root


def revisions() -> dict[str, str]:
    model = compose_config([f"model={MODEL}"]).model
    return {"nyu-mll/glue": str(read_task("mrpc").revision), str(model.path): str(model.revision)}


def test_what_was_fetched_is_used_without_the_hub(repositories: Path, tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {
        "HF_HOME": str(tmp_path / "home")
    }
    with hub(repositories, revisions()) as endpoint:
        fetched = run_bench(
            "fetch", f"--models={MODEL}", "--tasks", "mrpc", env=clean | {"HF_ENDPOINT": endpoint}
        )
    assert fetched.returncode == 0, fetched.stderr
    names = [line.split()[0] for line in fetched.stdout.splitlines() if line.strip()]
    assert names == [MODEL, "mrpc"]
    assert all(Path(line.split()[-1]).is_dir() for line in fetched.stdout.splitlines())
    assert not list((tmp_path / "home").rglob("pytorch_model.bin"))
    done = run_bench(
        "run",
        f"model={MODEL}",
        "task=mrpc",
        "data.source=hub",
        "embedding=subspace",
        "training.max_steps=1",
        "device=cpu",
        f"results_dir={tmp_path}/results",
        f"cache_dir={tmp_path}/cache",
        env=clean,
    )
    assert done.returncode == 0, done.stderr
    [record], _ = read_all(tmp_path / "results")
    assert record["task"]["data_sha256"] == f"hub:{read_task('mrpc').revision}"
    listed = run_bench("tasks", "data.source=hub", env=clean).stdout.splitlines()
    assert any(
        line.split()[:4] == ["mrpc", "hub", "train", "24"] and "-3,644 rows" in line for line in listed
    )
    assert any(
        line.split()[:3] == ["rte", "hub", "train"] and "make fetch TASKS=rte" in line for line in listed
    )


def test_of_a_model_without_weights_only_the_tokenizer_is_fetched(repositories: Path, tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {
        "HF_HOME": str(tmp_path / "home")
    }
    model = compose_config(["model=roberta-small"]).model
    there = compose_config([f"model={MODEL}"]).model
    shutil.copytree(
        repositories / "models" / str(there.path),
        repositories / "models" / str(model.path),
        dirs_exist_ok=True,
    )
    with hub(repositories, {str(model.path): str(model.revision)}) as endpoint:
        fetched = run_bench("fetch", "--models=roberta-small", env=clean | {"HF_ENDPOINT": endpoint})
    assert fetched.returncode == 0, fetched.stderr
    assert list((tmp_path / "home").rglob("tokenizer.json"))
    assert not list((tmp_path / "home").rglob("*.safetensors"))
    small = [
        "model.architecture.num_hidden_layers=1",
        "training.max_steps=1",
        "embedding=dense",
        "device=cpu",
    ]
    folders = [f"results_dir={tmp_path}/results", f"cache_dir={tmp_path}/cache"]
    done = run_bench("run", "model=roberta-small", "task=lexical_sentiment", *small, *folders, env=clean)
    assert done.returncode == 0, done.stderr


def test_another_revision_in_the_cache_is_not_taken(repositories: Path, tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {
        "HF_HOME": str(tmp_path / "home")
    }
    other = "0" * 40
    code = f"import datasets; datasets.load_dataset('nyu-mll/glue', 'mrpc', revision='{other}')"
    with hub(repositories, {"nyu-mll/glue": other}) as endpoint:
        import subprocess
        import sys

        subprocess.run(
            [sys.executable, "-c", code],
            env=clean | {"HF_ENDPOINT": endpoint},
            check=True,
            capture_output=True,
        )
    refused = run_bench(
        "run", "task=mrpc", "data.source=hub", "embedding=dense", f"results_dir={tmp_path}/results", env=clean
    )
    assert refused.returncode == 2
    assert "only another revision than" in refused.stderr
    assert "make fetch TASKS=mrpc" in refused.stderr


def test_an_unreachable_hub_says_which_sources_would_work(tmp_path: Path) -> None:
    done = run_bench(
        "fetch", "--tasks=mrpc", env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 2
    assert "data.root" in done.stderr and "parquet" in done.stderr and "official" in done.stderr


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--tasks=mrcp", "Did you mean 'mrpc'"),
        ("--models=all-minilm", "Did you mean 'all-minilm-l6-v2'"),
        ("--models=minilm", "model=minilm is called model=all-minilm-l6-v2 now"),
        ("--task=mrpc", "Did you mean '--tasks'"),
        ("task=mrpc", "Did you mean '--tasks'"),
        ("tasks=mrpc", "tasks (mrpc) is a flag: write --tasks=mrpc."),
        ("--tasks=", "Nothing to fetch"),
    ],
)
def test_wrong_names_stop_before_any_download(argument: str, said: str) -> None:
    done = run_bench("fetch", argument)
    assert done.returncode == 2
    assert said in done.stderr
