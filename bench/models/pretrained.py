"""Encoders: loaded with their weights checked or made from an architecture, measured, given another embedding."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.models.checkpoint import check_fit, check_values, new_in_head
from bench.models.location import locate
from bench.settings.schema import ModelConfig, TaskConfig

if TYPE_CHECKING:  # importing transformers takes seconds, which a plan can save
    from transformers import PreTrainedModel

HEADS = {
    "none": "AutoModel",
    "classification": "AutoModelForSequenceClassification",
    "masked_lm": "AutoModelForMaskedLM",
}
WITHOUT_WEIGHTS = ("random", "none")  # of `model.weights`: the values are drawn


def quiet_transformers() -> None:
    """Keep transformers' progress bars and warnings out of the log.

    `load_model` and `load_tokenizer` raise where transformers would warn: weights that do not fit, values that are not
    finite fp32, another model's tokenizer. Its warning of an "incorrect regex pattern", meant for Mistral's tokenizers, comes
    for any large tokenizer beside a config.json without a model type.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def shape(config: ModelConfig) -> tuple[int, int]:
    """Return (vocabulary size, embedding width) from the model's YAML file, else from its architecture."""
    if config.vocab_size is not None and config.width is not None:
        return config.vocab_size, config.width
    return cast(tuple[int, int], tuple(table(_skeleton(config)).shape))


def positions(config: ModelConfig) -> int | None:
    """Return the tokens of the longest sequence, from the model's YAML file, else from its architecture.

    None: the architecture has no limit.
    """
    return config.positions if config.positions is not None else _positions(_skeleton(config))


def _positions(model: "PreTrainedModel") -> int | None:
    """Return the number of positions for tokens.

    RoBERTa and its kin count from the padding token's id + 1, and their position table has a padding row. Relative
    positions have no limit, which config.json states as -1 (XLNet) or leaves out.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is None or longest < 0:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(longest - cast(Any, module).padding_idx - 1)
    return int(longest)


def _architecture(config: ModelConfig) -> Any:
    """Return the model's configuration, with the tokenizer's padding token if it has none.

    Raises ConfigError for an encoder-decoder and for keys that make no configuration, EnvironmentBroken for a missing one.
    """
    where, options = locate(config)
    read = from_pretrained("AutoConfig", config, where, options) if not config.architecture else None
    architecture = read or _stated_architecture(config)
    if architecture.is_encoder_decoder:
        raise ConfigError(
            f"model.path ({config.path}): {architecture.model_type} is an encoder-decoder, and bench trains encoders: "
            "use one such as BERT or RoBERTa."
        )
    if getattr(architecture, "pad_token_id", 0) is None:
        tokenizer = from_pretrained("AutoTokenizer", config, where, options)
        architecture.pad_token_id = tokenizer.pad_token_id
    return architecture


def _stated_architecture(config: ModelConfig) -> Any:
    """Return the configuration that the keys of `model.architecture` make."""
    import transformers

    try:
        return transformers.AutoConfig.for_model(**config.architecture)
    except Exception as error:  # transformers' own checks of types, and an unknown or missing model_type
        raise ConfigError(
            f"model.architecture ({config.architecture}) makes no configuration ({str(error).splitlines()[0]}): give "
            "model_type, as in conf/model/bert-small-6x384.yaml, and keys of its config.json."
        ) from error


def _skeleton(config: ModelConfig) -> "PreTrainedModel":
    """Return the encoder without values, on torch's meta device. It shows the shapes in milliseconds."""
    architecture = _architecture(config)
    with torch.device("meta"):
        return _from_config("none", config, architecture)


def _from_config(head: str, config: ModelConfig, architecture: Any) -> "PreTrainedModel":
    """Return the architecture with random weights in fp32, whatever dtype its config.json names."""
    import transformers

    try:
        model = getattr(transformers, HEADS[head]).from_config(architecture, dtype=torch.float32)
    except Exception as error:
        raise _unloadable(HEADS[head], config, error) from error
    return cast("PreTrainedModel", model)


def from_pretrained(auto: str, config: ModelConfig, where: str, options: dict[str, Any]) -> Any:
    """Return what transformers' class `auto` loads; raises EnvironmentBroken where loading fails."""
    import transformers

    quiet_transformers()
    try:
        return getattr(transformers, auto).from_pretrained(where, trust_remote_code=False, **options)
    except MemoryError:
        raise
    except Exception as error:
        raise _unloadable(auto, config, error) from error


def _unloadable(auto: str, config: ModelConfig, error: Exception) -> EnvironmentBroken:
    """Return the error for files that transformers refuses, whose exceptions have no base class in common."""
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
    """Return the encoder with its weights in fp32, and transformers' report on loading.

    A head of another shape is replaced by a new head. Raises ConfigError for weights that do not fit the body. On the
    meta device only names and shapes of the tensors are read.
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
    """Return the encoder with a `head` (none | classification | masked_lm), in fp32 and evaluation mode.

    The head is new where the files have none. `labels` go into the model's configuration (num_labels, id2label,
    problem_type). Raises ConfigError for weights that do not fit the architecture or are not finite, and where
    vocabulary, width or positions differ from the model's YAML file.
    """
    if config.weights in WITHOUT_WEIGHTS:
        architecture = _architecture(config)
        architecture.update(labels)
        model = _from_config(head, config, architecture)
    else:
        model, _ = _pretrained(head, config, **labels)
        check_values(model, config.path)
    _check_stated(config, model)
    return cast("PreTrainedModel", model.eval())


def _check_stated(config: ModelConfig, model: "PreTrainedModel") -> None:
    """Raise ConfigError where vocabulary, width or positions differ from the model's YAML file."""
    actual = tuple(table(model).shape)
    stated = (config.vocab_size or actual[0], config.width or actual[1])
    if actual != stated:
        raise ConfigError(
            f"model.vocab_size and model.width say {stated}, but the weights of {config.path} have {actual}."
        )
    longest = _positions(model)
    if None not in (longest, config.positions) and longest != config.positions:
        raise ConfigError(
            f"model.positions says {config.positions}, but the model of {config.path} takes {longest} tokens: "
            "set it to that."
        )


def load_classifier(config: ModelConfig, task: TaskConfig) -> "PreTrainedModel":
    """Return the encoder with a new head for the task's classes, or for a number where the task is a regression.

    The head reads what `model.pooling` names; null leaves it to the architecture's own class.
    """
    if task.labels is None:
        labels: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
    else:
        names = dict(enumerate(task.labels))
        ids = {label: i for i, label in names.items()}
        labels = {"num_labels": len(names), "id2label": names, "label2id": ids}
    if config.pooling is None:
        return load_model(config, "classification", **labels)
    from bench.models.pooling import PooledClassifier

    return cast(
        "PreTrainedModel", PooledClassifier(load_model(config, "none", **labels), config.pooling).eval()
    )


def check_classifier(config: ModelConfig) -> None:
    """Raise ConfigError as `load_model` does for a classifier, as far as possible without reading the weights."""
    head = "classification" if config.pooling is None else "none"
    if config.weights in WITHOUT_WEIGHTS:
        with torch.device("meta"):
            model = _from_config(head, config, _architecture(config))
    else:
        model, _ = _pretrained(head, config, "meta")
    _check_stated(config, model)


def check_masked_lm_head(config: ModelConfig) -> None:
    """Raise ConfigError if the model's files lack a masked-LM head; a decoder tied to the embedding may be missing."""
    try:
        if config.weights in WITHOUT_WEIGHTS:
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
    """Return the model's embedding table (V, d), detached; raises ConfigError for a model without tokens."""
    try:
        return cast(nn.Embedding, model.get_input_embeddings()).weight.detach()
    except (AttributeError, NotImplementedError) as error:
        raise ConfigError(
            f"{type(model).__name__} has no embedding table of tokens: use an encoder of text."
        ) from error


def swap_embedding(model: "PreTrainedModel", embedding: nn.Module) -> None:
    """Replace the model's input embedding, and the decoder of its masked-LM head if the two are tied.

    The decoder keeps its pretrained bias, and an untied head keeps its matrix. Raises BenchError for a head whose
    decoder cannot be replaced.
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
    model.config.tie_word_embeddings = False  # transformers would tie the decoder to the former weight
