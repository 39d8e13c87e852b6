"""An encoder without a task, for `export --encoder`: its embedding replaced and recovered, one vector for each text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedConfig

from bench import store
from bench.errors import ConfigError
from bench.export import encoder_card, onnx
from bench.export.subject import Subject
from bench.models import body, pretrained, swap
from bench.models.pooling import PooledEncoder
from bench.models.tokenizers import load_tokenizer
from bench.probes import sentences
from bench.runs.identity import prepare
from bench.runs.loading import device_of, load
from bench.settings.compose import compose_config
from bench.settings.schema import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Keys of config.json that only a classifier needs.
OF_TASKS = ("id2label", "label2id", "problem_type")
# Of the keys that decide a run, those that come after its encoder.
LATER = ("task", "training", "data")


@dataclass(frozen=True)
class Encoder(Subject):
    """An encoder, with the sentences on which it is to be measured, if it is."""

    read: sentences.Sentences | None
    output = "sentence_embedding"

    def save_dense(self, model: "PreTrainedModel", target: Path) -> None:
        """Write the encoder as AutoModel loads it, and the files from which sentence-transformers knows what to do."""
        cast(Any, model.base_model).save_pretrained(target)
        config = self.prepared.config.model
        modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
        # The names of before version 6, which also reads them.
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (path, name) in enumerate(modules.items())
        ]
        pooling = {
            f"pooling_mode_{mode}": mode.startswith(str(config.pooling))
            for mode in ("cls_token", "mean_tokens")
        }
        prompts = (
            {"prompts": {"query": config.prefix}, "default_prompt_name": "query"} if config.prefix else {}
        )
        files: dict[str, Any] = {
            "modules.json": listed,
            "1_Pooling/config.json": {"word_embedding_dimension": model.config.hidden_size, **pooling},
            "sentence_bert_config.json": {"max_seq_length": self.length, "do_lower_case": False},
            "config_sentence_transformers.json": {**prompts, "similarity_fn_name": "cosine"},
        }
        for name, content in files.items():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).write_text(json.dumps(content, indent=1) + "\n")

    def evaluate(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        target: Path,
        facts: dict[str, Any],
    ) -> None:
        """Add `measures`: those of the dense encoder, of this one and, if it is there, of its int8 file."""
        assert self.read is not None
        config = self.prepared.config
        device, cpu = device_of(config), torch.device("cpu")
        dense = PooledEncoder(pretrained.load_model(config.model, "none"), _pooling(config.model)).eval()
        models = {
            "dense": (dense, load_tokenizer(config.model), device),
            "compressed": (model, tokenizer, device),
        }
        if (int8 := target / "model-int8.onnx").is_file():
            models[int8.name] = (onnx.OnnxModel(int8), tokenizer, cpu)
        facts["measures"] = {
            name: sentences.measure(measured, reader, self.read, config.model.prefix, self.length, where)
            for name, (measured, reader, where) in models.items()
        }

    def card(self, facts: dict[str, Any]) -> str:
        """Return README.md."""
        return encoder_card.write(self.prepared, self.length, facts)

    @property
    def length(self) -> int | None:
        """Return the most tokens of a text; None where the architecture has no limit."""
        return pretrained.positions(self.prepared.config.model)


def made(overrides: Sequence[str], evaluate: bool, scratch: Path) -> Encoder:
    """Return the encoder of the run that the overrides describe, as it is before any task trains it, saved in `scratch`.

    A recovery that such a run has kept in the cache is read from there. Raises ConfigError, before any work, for what
    an encoder alone cannot have: a vector that only a classifier's own class defines, and the text of no task.
    """
    prepared = prepare(compose_config(overrides))
    config, canonical = prepared.config, prepared.canonical
    pooling = _pooling(config.model)
    _check_corpora(canonical, overrides)
    read = sentences.read(config.data) if evaluate else None
    store.check_writable(Path(config.cache_dir))

    # Load and recover as a run does, and leave its new classifier and its labels behind.
    (loaded,) = load([prepared], device_of(config))
    model = PooledEncoder(cast(Any, loaded.model.base_model), pooling).eval()
    model.config.update({key: getattr(PreTrainedConfig(), key) for key in OF_TASKS})
    body.round_off(model, config.body)
    swap.save(config, model, scratch / "model")

    inside = sum(parameter.numel() for parameter in model.get_input_embeddings().parameters())
    facts = {
        "config": {key: value for key, value in canonical.items() if key not in LATER},
        "size": {
            "embedding": loaded.size["embedding_bytes"],
            "dense_embedding": loaded.size["dense_embedding_bytes"],
            "other_params": sum(parameter.numel() for parameter in model.parameters()) - inside,
        },
        "relative_error": loaded.fit["relative_error"],
        "recovery": {
            key: loaded.recovery[key]
            for key in ("name", "texts", "steps", "sha256")
            if key in loaded.recovery
        },
    }
    return Encoder(prepared, scratch / "model", facts, read)


def _pooling(config: ModelConfig) -> str:
    """Return how a text's states become its vector; raises ConfigError where only a classifier's own class says so."""
    if config.pooling is None:
        raise ConfigError(
            "model.pooling (null) leaves to the classifier's own class what it reads, and --encoder cannot carry that: set "
            "model.pooling=mean, or cls for an encoder that was trained to be read so."
        )
    return config.pooling


def _check_corpora(canonical: dict[str, Any], overrides: Sequence[str]) -> None:
    """Raise ConfigError where a task's text is used and no task was named: the default's is synthetic."""
    keys = {"embedding": "assignment", "assignment": "assignment", "recovery": "recovery"}
    used = [key for part, key in keys.items() if (canonical[part] or {}).get("corpus") == "task"]
    if used and not any(override.startswith("task=") for override in overrides):
        raise ConfigError(
            f"{used[0]}.corpus (task) is the text of a task, and --encoder has none: name a file or splits of tasks, as in "
            f"{used[0]}.corpus=mrpc:train+stsb:train, or the task whose text it is, as in task=mrpc."
        )
