"""Pretrained encoders: load one, swap its embedding, save and load it again without a dense V x d tensor."""

import importlib.util
import json
import shutil
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.assignment import ASSIGNMENTS
from bench.embeddings import method
from bench.embeddings.base import Source
from bench.errors import BenchError, ConfigError, EnvironmentBroken, unknown
from bench.models.body import pack, unpack
from bench.models.checkpoint import INDEX, check_fit, check_values, new_in_head, weight_files
from bench.settings.choices import CHOICES, keys
from bench.settings.embeddings import EmbeddingConfig
from bench.settings.schema import AssignmentConfig, ModelConfig, TaskConfig
from bench.store import file_sha256, sha256

if TYPE_CHECKING:  # transformers reads 1,669 files when it is imported, and again when one of these is named: seconds, which a plan does not need
    from transformers import PreTrainedModel

HEADS = {
    "none": "AutoModel",
    "classification": "AutoModelForSequenceClassification",
    "masked_lm": "AutoModelForMaskedLM",
}
SOURCES = ("package", "hub", "local")
DESCRIPTION = "bench.json"  # beside model.safetensors: what to build before its tensors are loaded


def quiet_transformers() -> None:
    """Keep transformers' progress bars and warnings out of the log.

    `load_model` checks what they are about: weights that do not fit (`check_fit`), number formats (`check_values`).
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


# Cached, as a plan asks for the same few files thousands of times, and nothing changes them while it runs.
digest = cache(file_sha256)


def locate(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Return what `from_pretrained` takes: a folder or repository, and keyword arguments.

    Raises ConfigError for an unknown source or a missing folder, EnvironmentBroken for a package that is not installed
    or weights whose SHA-256 is not the one that `model.sha256` names.
    """
    if config.source not in SOURCES:
        raise ConfigError(unknown("model.source", config.source, SOURCES))
    if config.path is None:
        raise ConfigError("model.path is empty: set it to the repository or folder that holds the model.")
    if config.source == "hub":
        return config.path, {"revision": config.revision}
    if config.source == "package":
        package, _, inside = config.path.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise EnvironmentBroken(
                f"model.path ({config.path}): the package '{package}' is not installed; run `make install`."
            )
        folder = Path(spec.submodule_search_locations[0]) / inside
    else:
        folder = Path(config.path)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.path ({config.path}): no config.json in {folder}; point it to a folder with a saved model."
        )
    if config.sha256 and config.weights == "pretrained":
        files = weight_files(folder)
        if not files:
            raise EnvironmentBroken(
                f"model.path ({config.path}): no model.safetensors in {folder}; install the model again."
            )
        if (found := digest(*files)) != config.sha256:
            shown = files[0] if len(files) == 1 else f"the {len(files)} shards of {folder / INDEX}"
            raise EnvironmentBroken(
                f"model.sha256 ({config.sha256}) is not the SHA-256 of {shown} ({found}): "
                "the weights are damaged or another version; install the model again."
            )
    return str(folder), {}


def identity(config: ModelConfig) -> dict[str, Any]:
    """Return what of a model decides the result. A local folder counts by its content, not by its path."""
    where, _ = locate(config)
    known: dict[str, Any] = {"name": config.name, "weights": config.weights}
    if config.source == "hub":
        return known | {"path": where, "revision": config.revision}
    if config.sha256 and config.weights == "pretrained":
        return known | {"sha256": config.sha256}
    files = sorted(
        p for p in Path(where).iterdir() if p.suffix in (".safetensors", ".json", ".txt", ".model")
    )
    return known | {"sha256": sha256("".join(digest(p) for p in files))}


def shape(config: ModelConfig) -> tuple[int, int]:
    """Return (vocabulary size, embedding width), from the model's YAML file or else from its architecture."""
    if config.vocab_size is not None and config.width is not None:
        return config.vocab_size, config.width
    return cast(tuple[int, int], tuple(table(_skeleton(config)).shape))


def positions(config: ModelConfig) -> int | None:
    """Return how many tokens a sequence may have, from the model's YAML file or else from its architecture.

    None: the architecture sets no limit.
    """
    return config.positions if config.positions is not None else _positions(_skeleton(config))


def _positions(model: "PreTrainedModel") -> int | None:
    """Return the positions that are free for tokens.

    RoBERTa and its kin count from the padding token's id + 1; their position table has a padding row. Relative positions
    have no limit, which config.json states as -1 (XLNet) or leaves out.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is None or longest < 0:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(longest - cast(Any, module).padding_idx - 1)
    return int(longest)


def _architecture(config: ModelConfig) -> Any:
    """Return the model's configuration. One without a padding token takes its tokenizer's.

    Raises ConfigError for an encoder-decoder, EnvironmentBroken where there is no configuration.
    """
    quiet_transformers()
    where, options = locate(config)
    architecture = from_pretrained("AutoConfig", config, where, options)
    if architecture.is_encoder_decoder:
        raise ConfigError(
            f"model.path ({config.path}): {architecture.model_type} is an encoder-decoder, and bench trains encoders: "
            "use one such as BERT or RoBERTa."
        )
    if getattr(architecture, "pad_token_id", 0) is None:
        tokenizer = from_pretrained("AutoTokenizer", config, where, options)
        architecture.pad_token_id = tokenizer.pad_token_id
    return architecture


def _skeleton(config: ModelConfig) -> "PreTrainedModel":
    """Return the encoder without values, on torch's meta device: what its tables look like, in milliseconds."""
    architecture = _architecture(config)
    with torch.device("meta"):
        return _from_config("none", config, architecture)


def _from_config(head: str, config: ModelConfig, architecture: Any) -> "PreTrainedModel":
    """Return the architecture with random weights in fp32, whatever format its config.json names."""
    import transformers

    try:
        model = getattr(transformers, HEADS[head]).from_config(architecture, dtype=torch.float32)
    except Exception as error:
        raise _unloadable(HEADS[head], config, error) from error
    return cast("PreTrainedModel", model)


def from_pretrained(auto: str, config: ModelConfig, where: str, options: dict[str, Any]) -> Any:
    """Return what transformers' class `auto` loads; raises EnvironmentBroken where it cannot."""
    import transformers

    try:
        return getattr(transformers, auto).from_pretrained(where, trust_remote_code=False, **options)
    except MemoryError:
        raise
    except Exception as error:
        raise _unloadable(auto, config, error) from error


def _unloadable(auto: str, config: ModelConfig, error: Exception) -> EnvironmentBroken:
    """Return the error for files that transformers refuses: its own and those of what it uses have no base class in common."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    hint = (
        "run `make fetch` where the hub can be reached, or set model.source=local"
        if config.source == "hub"
        else "check it"
    )
    return EnvironmentBroken(f"model.path ({config.path}) cannot be loaded ({auto}: {reason}): {hint}.")


def _pretrained(
    head: str, config: ModelConfig, device: str = "cpu", **labels: Any
) -> tuple["PreTrainedModel", dict[str, Any]]:
    """Return the encoder with its weights in fp32, and transformers' report on loading them.

    Raises ConfigError where they do not fit its body; a head of another shape is new. The meta device reads the tensors'
    names and shapes only.
    """
    where, options = locate(config)
    architecture = _architecture(config)
    architecture.update(labels)
    options |= {"config": architecture, "use_safetensors": True, "dtype": torch.float32}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if device == "meta":
        options["device_map"] = device
    model, info = from_pretrained(HEADS[head], config, where, options)
    check_fit(model, info, config.path)
    return cast("PreTrainedModel", model), info


def load_model(config: ModelConfig, head: str, **labels: Any) -> "PreTrainedModel":
    """Return the encoder with a `head` (none | classification | masked_lm), in fp32 and training mode off.

    The head is new where the files hold none. `labels` go into the model's configuration (num_labels, id2label,
    problem_type). Raises ConfigError for weights that do not fit the architecture or are not finite, and where the
    vocabulary, the width or the positions differ from those that the model's YAML file states.
    """
    if config.weights == "random":
        architecture = _architecture(config)
        architecture.update(labels)
        model = _from_config(head, config, architecture)
    else:
        model, _ = _pretrained(head, config, **labels)
        check_values(model, config.path)
    _check_stated(config, model)
    return cast("PreTrainedModel", model.eval())


def _check_stated(config: ModelConfig, model: "PreTrainedModel") -> None:
    """Raise ConfigError where the vocabulary, the width or the positions are not what the model's YAML file states."""
    found = tuple(table(model).shape)
    stated = (config.vocab_size or found[0], config.width or found[1])
    if found != stated:
        raise ConfigError(
            f"model.vocab_size and model.width say {stated}, but the weights of {config.path} have {found}."
        )
    longest = _positions(model)
    if None not in (longest, config.positions) and longest != config.positions:
        raise ConfigError(
            f"model.positions says {config.positions}, but the model of {config.path} takes {longest} tokens: "
            "set it to that."
        )


def load_classifier(config: ModelConfig, task: TaskConfig) -> "PreTrainedModel":
    """Return the encoder with a new head for the task's classes, or for one number where it has none."""
    if task.labels is None:
        return load_model(config, "classification", num_labels=1, problem_type="regression")
    return load_model(
        config,
        "classification",
        num_labels=len(task.labels),
        id2label=dict(enumerate(task.labels)),
        label2id={label: i for i, label in enumerate(task.labels)},
    )


def check_classifier(config: ModelConfig) -> None:
    """Raise ConfigError where `load_model` would for a classifier, as far as that is known without reading the weights."""
    if config.weights == "random":
        with torch.device("meta"):
            model = _from_config("classification", config, _architecture(config))
    else:
        model, _ = _pretrained("classification", config, "meta")
    _check_stated(config, model)


def check_masked_lm_head(config: ModelConfig) -> None:
    """Raise ConfigError if the model's files hold no masked-LM head; a decoder that is tied to the embedding may be missing."""
    try:
        if config.weights == "random":
            with torch.device("meta"):
                _from_config("masked_lm", config, _architecture(config))
            return
        absent = new_in_head(*_pretrained("masked_lm", config, "meta"))
    except EnvironmentBroken as error:
        raise ConfigError(
            f"model={config.name} has no masked-LM head that can be read, use recovery=distil: {error}"
        ) from error
    if absent:
        raise ConfigError(
            f"model={config.name} has no masked-LM head (its file lacks {absent[0]}), which recovery=masked_lm needs: "
            "use recovery=distil."
        )


def table(model: "PreTrainedModel") -> Tensor:
    """Return the model's embedding table (V, d), detached. Raises ConfigError for a model that reads no tokens."""
    try:
        return cast(nn.Embedding, model.get_input_embeddings()).weight.detach()
    except (AttributeError, NotImplementedError) as error:
        raise ConfigError(
            f"{type(model).__name__} has no embedding table of tokens: use an encoder of text."
        ) from error


def swap_embedding(model: "PreTrainedModel", embedding: nn.Module) -> None:
    """Replace the model's input embedding, and the decoder of its masked-LM head if the two were tied.

    The decoder keeps its pretrained bias. An untied head keeps its own matrix. Raises BenchError for a head that
    cannot take another decoder.
    """
    old = model.get_input_embeddings()
    head = model.get_output_embeddings()
    tied = head is not None and (model.config.tie_word_embeddings or head.weight is old.weight)
    model.set_input_embeddings(embedding)
    if not tied:
        return
    if isinstance(embedding, nn.Embedding):
        cast(nn.Linear, head).weight = embedding.weight
        return
    if head.weight.shape != old.weight.shape:  # DeBERTa-v2 with legacy=False
        raise BenchError(
            f"{type(model).__name__}: its head multiplies by the table itself, not by a decoder that "
            "could be replaced; use the architecture's other masked-LM head."
        )
    model.set_output_embeddings(cast(Any, embedding).decoder(head.bias))
    model.config.tie_word_embeddings = False  # or transformers would tie the decoder to a weight that is gone


def save_compressed(
    model: "PreTrainedModel",
    folder: Path,
    config: EmbeddingConfig,
    codes_stored: bool,
    assignment: AssignmentConfig | None = None,
    body: str = "fp32",
) -> Path:
    """Write model.safetensors, config.json and a description to `folder`; return the tensors' file.

    `config` is the resolved configuration of the model's embedding, `assignment` (null: sequential) says how codes that
    are not stored are made. Tensors that share memory are written once; a compressed embedding is written as its tables and,
    if `codes_stored`, its packed codes; all else in the form `body`, without loss where `body.round_off` has rounded it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first_name: dict[tuple[Any, ...], str] = {}
    state, shared = {}, {}
    for name, tensor in model.state_dict().items():
        first = first_name.setdefault((tensor.data_ptr(), tensor.shape), name)
        if first == name:
            state[name] = tensor.contiguous().cpu()
        else:
            shared[name] = first
    head = model.get_output_embeddings()
    tied = model.config.tie_word_embeddings or not (head is None or isinstance(head, nn.Linear))
    description = {
        "architecture": type(model).__name__,
        "embedding": asdict(config),
        "codes_stored": codes_stored,
        "assignment": asdict(assignment or AssignmentConfig(name="sequential")),
        "vocab_size": model.config.vocab_size,
        "tied": tied,
        "shared": shared,
        "body": body,
        "padding_idx": cast(Any, model.get_input_embeddings()).padding_idx,
    }
    model.config.save_pretrained(folder)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))
    weights = folder / "model.safetensors"
    save_file(pack(state, model, body), weights, metadata={"format": "pt"})
    shutil.copymode(folder / DESCRIPTION, weights)  # safetensors' are the owner's alone, whatever the umask
    return weights


def load_compressed(folder: Path) -> "PreTrainedModel":
    """Return the model that `save_compressed` wrote, without building its V x d table on the way; all else than the embedding in fp32.

    Raises BenchError if the description names no transformers model, or if tensors are damaged, missing or left over.
    """
    import transformers
    from transformers.initialization import no_init_weights

    description = json.loads((folder / DESCRIPTION).read_text())
    architecture = getattr(transformers, description["architecture"], None)
    if not (isinstance(architecture, type) and issubclass(architecture, transformers.PreTrainedModel)):
        raise BenchError(
            f"{folder / DESCRIPTION} names no transformers model: {description['architecture']}."
        )
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.tie_word_embeddings = description["tied"]
    # As few rows as the padding token allows: the table is replaced before it is filled.
    vocab_size, config.vocab_size = description["vocab_size"], (config.pad_token_id or 0) + 1
    settings = _settings(description["embedding"], folder / DESCRIPTION)
    chosen, codes = method(settings.name), None
    if chosen.assigned and not description["codes_stored"]:
        made, (subspaces, rows) = _assignment(description["assignment"]), chosen.codes(settings)
        codes = ASSIGNMENTS[made.name].build(np.empty(0), vocab_size, subspaces, rows, made, None)
    with no_init_weights():  # of values that the file's replace: most of the time of loading
        model = architecture(config)
        width = cast(nn.Embedding, model.get_input_embeddings()).embedding_dim
        shape = torch.empty(vocab_size, width, device="meta")
        stored = description["codes_stored"]
        embedding = chosen.empty(settings, Source(shape, description["padding_idx"], codes, stored))
    model.tie_weights()
    swap_embedding(model, embedding)
    try:
        state = unpack(load_file(folder / "model.safetensors"), model, description.get("body", "fp32"))
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        state = {
            name: nn.Parameter(tensor) if name in parameters and tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
        state |= {name: state[first] for name, first in description["shared"].items()}
        for name, parameter in model.named_parameters():  # of a masked-LM head: one row or element a token
            if (
                parameter.shape[:1] == (config.vocab_size,)
                and name in state
                and len(state[name]) == vocab_size
            ):
                parameter.data = torch.empty_like(state[name])
        model.load_state_dict(state, assign=True)  # the file stays mapped: what is never read takes no memory
    except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise BenchError(
            f"{folder / 'model.safetensors'} does not hold the model that {DESCRIPTION} describes: {error}"
        ) from error
    config.vocab_size = vocab_size
    return cast("PreTrainedModel", model.eval())


def _settings(stored: dict[str, Any], path: Path) -> EmbeddingConfig:
    """Return the embedding's configuration; raises BenchError for an option of an older form that is gone.

    Older files hold the keys of every method, with the defaults of those that this one does not use.
    """
    name = stored["name"]
    gain = stored.get("gain") and name != "codebook"
    if gain or stored.get("rotation") is not None or stored.get("table_dtype") in ("fp16", "int4"):
        raise BenchError(
            f"{path} describes an embedding with gains, a rotation or tables in {stored.get('table_dtype')}, which bench no "
            "longer has: load it with the version that wrote it, and export it with --materialise."
        )
    kind: Any = CHOICES["embedding"][name]
    return cast(EmbeddingConfig, kind(**{key: stored[key] for key in keys(kind) & set(stored)}))


def _assignment(stored: dict[str, Any]) -> AssignmentConfig:
    """Return the assignment; older files hold keys that are gone, and that codes made without vectors do not depend on."""
    known = {field.name for field in fields(AssignmentConfig)}
    return AssignmentConfig(**{key: value for key, value in stored.items() if key in known})
