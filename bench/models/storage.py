"""A model with a compressed embedding on disk: saved as its tables, loaded without a dense V x d tensor on the way."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bench.assignment import computed
from bench.embeddings import method
from bench.embeddings.base import Source
from bench.errors import BenchError
from bench.models.body import pack, unpack
from bench.models.checkpoint import WEIGHTS
from bench.models.pretrained import swap_embedding
from bench.settings.assignments import AssignmentConfig, SequentialConfig
from bench.settings.choices import named
from bench.settings.embeddings import EmbeddingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DESCRIPTION = "bench.json"  # beside model.safetensors: what to build before its tensors are loaded


def save_compressed(
    model: "PreTrainedModel",
    folder: Path,
    config: EmbeddingConfig,
    codes_stored: bool,
    assignment: AssignmentConfig | None = None,
    body: str = "fp32",
) -> Path:
    """Write model.safetensors, config.json and a description to `folder`; return the tensors' file.

    `config` is the resolved configuration of the model's embedding. `assignment` (null: sequential) says how codes that
    are not stored are computed. The embedding is written as its tables and, if `codes_stored`, its packed codes; all
    else in the form `body`, without loss where `body.round_off` has rounded it.
    """
    folder.mkdir(parents=True, exist_ok=True)

    # Write tensors that share memory once.
    first_name: dict[tuple[Any, ...], str] = {}
    state, shared = {}, {}
    for name, tensor in model.state_dict().items():
        first = first_name.setdefault((tensor.data_ptr(), tensor.shape), name)
        if first == name:
            state[name] = tensor.contiguous().cpu()
        else:
            shared[name] = first

    head, pooling = model.get_output_embeddings(), getattr(model, "pooling", None)
    description = {
        "architecture": type(model).__name__,
        "embedding": asdict(config),
        "codes_stored": codes_stored,
        "assignment": asdict(assignment or SequentialConfig()),
        "vocab_size": model.config.vocab_size,
        "tied": model.config.tie_word_embeddings or not (head is None or isinstance(head, nn.Linear)),
        "shared": shared,
        "body": body,
        **({"pooling": pooling, "encoder": type(model.base_model).__name__} if pooling else {}),
        "padding_idx": cast(Any, model.get_input_embeddings()).padding_idx,
    }
    model.config.save_pretrained(folder)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))
    weights = folder / WEIGHTS
    save_file(pack(state, model, body), weights, metadata={"format": "pt"})
    shutil.copymode(folder / DESCRIPTION, weights)  # safetensors ignores the umask: only the owner could read
    return weights


def load_compressed(folder: Path) -> "PreTrainedModel":
    """Return the model that `save_compressed` wrote, without building its V x d table; the body in fp32.

    The file stays memory-mapped, so that tensors which are never read take no memory. Raises BenchError if the
    description names no transformers model, or if tensors are damaged, missing or left over.
    """
    description = json.loads((folder / DESCRIPTION).read_text())
    vocab_size = description["vocab_size"]
    model = _without_values(folder, description)
    try:
        state = unpack(load_file(folder / WEIGHTS), model, description.get("body", "fp32"))
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        for name, tensor in state.items():
            if name in parameters and tensor.is_floating_point():
                state[name] = nn.Parameter(tensor)
        state |= {name: state[first] for name, first in description["shared"].items()}

        # A masked-LM head has parameters with a row or element for each token, too few so far.
        for name, parameter in model.named_parameters():
            per_token = parameter.shape[:1] == (model.config.vocab_size,)
            if per_token and name in state and len(state[name]) == vocab_size:
                parameter.data = torch.empty_like(state[name])
        model.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise BenchError(
            f"{folder / WEIGHTS} does not hold the model that {DESCRIPTION} describes: {error}"
        ) from error
    model.config.vocab_size = vocab_size
    return cast("PreTrainedModel", model.eval())


def _without_values(folder: Path, description: dict[str, Any]) -> "PreTrainedModel":
    """Return the model with its embedding in place, to be filled; its vocabulary is as small as it can be.

    Raises BenchError if the description names no transformers model.
    """
    import transformers
    from transformers.initialization import no_init_weights

    from bench.models.pooling import PooledClassifier, PooledEncoder

    pooling = description.get("pooling")
    architecture = getattr(transformers, description["encoder" if pooling else "architecture"], None)
    if not (isinstance(architecture, type) and issubclass(architecture, transformers.PreTrainedModel)):
        raise BenchError(
            f"{folder / DESCRIPTION} names no transformers model: {description['architecture']}."
        )
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.tie_word_embeddings = description["tied"]
    # As few rows as the padding token allows: the table is replaced before it is filled.
    vocab_size, config.vocab_size = description["vocab_size"], (config.pad_token_id or 0) + 1

    settings = _settings(description["embedding"], folder / DESCRIPTION)
    chosen, codes, stored = method(settings.name), None, description["codes_stored"]
    if chosen.assigned and not stored:
        assignment = cast(AssignmentConfig, named("assignment", description["assignment"]))
        codes = computed(assignment, vocab_size, *chosen.codes(settings))

    # Initial values would take most of the time, and the file's replace them.
    with no_init_weights():
        model = architecture(config)
        if pooling:
            alone = description["architecture"] == PooledEncoder.__name__
            model = (PooledEncoder if alone else PooledClassifier)(model, pooling)
        width = cast(nn.Embedding, model.get_input_embeddings()).embedding_dim
        shape = torch.empty(vocab_size, width, device="meta")
        embedding = chosen.empty(settings, Source(shape, description["padding_idx"], codes, stored))
    model.tie_weights()
    swap_embedding(model, embedding)
    return model


def _settings(stored: dict[str, Any], path: Path) -> EmbeddingConfig:
    """Return the embedding's configuration; raises BenchError for an option that bench no longer has.

    Older files have the keys of every method and assignment, those that the chosen one does not use at their defaults.
    """
    name = stored["name"]
    gain = stored.get("gain") and name != "codebook"
    if gain or stored.get("rotation") is not None or stored.get("table_dtype") in ("fp16", "int4"):
        raise BenchError(
            f"{path} describes an embedding with gains, a rotation or tables in {stored.get('table_dtype')}, which bench no "
            "longer has: load it with the version that wrote it, and export it with --materialise."
        )
    return cast(EmbeddingConfig, named("embedding", stored))
