"""A model's embedding replaced as the configuration says, and how well the new embedding fits."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import bench.assignment
from bench import store
from bench.assignment import Codes
from bench.assignment.vectors import TokenVectors, token_vectors, vectors_key
from bench.embeddings import assignment_of, method
from bench.embeddings.base import Source, Vocabulary
from bench.embeddings.table_error import decile_errors, relative_error, squared_errors
from bench.embeddings.wrappers import Shared
from bench.errors import ConfigError
from bench.models import pretrained, storage
from bench.models.sizes import sizes
from bench.models.tokenizers import load_tokenizer
from bench.models.trimmed_tokenizer import character_counts, with_ancestors
from bench.settings.assignments import AssignmentConfig, ClusteredConfig
from bench.settings.compose import compose_config
from bench.settings.embeddings import DenseConfig, LowRankConfig, TablesConfig
from bench.settings.schema import RunConfig
from bench.store import FitPart, SizePart
from bench.tasks.corpora import UNNAMED, passages
from bench.tasks.data import Rows
from bench.tasks.text import cached_counts, rules_sha256

log = logging.getLogger("bench")
Texts = Callable[[], Sequence[str]]  # called only where texts are needed, as reading takes long


def texts_of(corpus: str, config: RunConfig, split: Rows) -> Texts:
    """Return a function that reads a corpus: the texts of the split for "task", else as `corpora.passages`.

    It warns of languages of the run's task that the corpus, which names languages, has no text in.
    """

    def read() -> Sequence[str]:
        if corpus == "task":
            return [text for column in split.column_names for text in split[column]]
        texts = passages(corpus, config)
        named = texts.languages.keys() - {UNNAMED}
        if named and (lacking := set(config.task.languages) - named):
            log.warning(
                "%s has no text that is named as %s, languages of the task %s",
                corpus,
                ", ".join(sorted(lacking)),
                config.task.name,
            )
        return texts

    return read


def compressed(
    config: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Texts
) -> tuple[nn.Module, Codes | None]:
    """Return the module that replaces the model's embedding, and its codes; the model does not change.

    The configuration must be resolved. Raises BenchError for token vectors that are not finite.
    """
    embedding, device = config.embedding, clustering_device(config)
    chosen, table = method(embedding.name), pretrained.table(model)
    # The tokenizer's, as a model's configuration can name another token (Multilingual MiniLM: <s>).
    padding = cast(int | None, tokenizer.pad_token_id)
    vocabulary = vocabulary_of(config, tokenizer, texts, len(table))
    codes = _codes(config, model, tokenizer, texts, vocabulary)

    # Build the module on the pretrained table.
    source = Source(
        table,
        padding,
        codes=None if codes is None else codes.codes,
        codes_stored=codes is not None and codes.stored,
        vocabulary=vocabulary,
        generator=torch.Generator().manual_seed(config.seed),
        device=device,
    )
    module = chosen.build(embedding, source)

    # Give the clusters' memory back.
    if codes and codes.device == "cuda":
        torch.cuda.empty_cache()

    # Where code rows are shared, the module decides the codes.
    for part in module.modules():
        if isinstance(part, Shared):
            codes = Codes(part.codes(), True, False, codes.device if codes else None)
    return module, codes


def _codes(
    config: RunConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    vocabulary: Vocabulary | None,
) -> Codes | None:
    """Return each token's codes, or None for an embedding without any."""
    embedding, assignment = config.embedding, assignment_of(config)
    if assignment is None:
        return None
    table, kind = pretrained.table(model), bench.assignment.vectors_of(assignment)
    subspaces, rows = method(embedding.name).codes(embedding)
    kept = embedding.keep_dense if isinstance(embedding, TablesConfig) else 0
    padding = cast(int | None, tokenizer.pad_token_id)
    finished, reader = _finished(config, model, tokenizer)
    static, context = kind in ("static", "both"), kind in ("context", "both")
    return bench.assignment.assign(
        assignment,
        vocab_size=len(table),
        subspaces=subspaces,
        rows=rows,
        table=_points(config, pretrained.table(finished), table.shape[1]) if static else None,
        vectors=_token_vectors(config, finished, reader, texts) if context else None,
        weights=None if vocabulary is None else _clustered(vocabulary, kept, padding),
        cache_dir=Path(config.cache_dir),
        device=clustering_device(config),
    )


def _finished(
    config: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model whose vectors stand for the tokens, and its tokenizer: the run's own, or those of `assignment.model`.

    Raises ConfigError where the vocabularies differ.
    """
    assignment = assignment_of(config)
    if not isinstance(assignment, ClusteredConfig) or assignment.model is None:
        return model, tokenizer
    chosen = compose_config([f"model={assignment.model}"]).model
    theirs = load_tokenizer(chosen)
    if theirs.get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"assignment.model ({assignment.model}) has another vocabulary than model={config.model.name}, so that its tokens are "
            "not the same: name a model with the same tokenizer."
        )
    return pretrained.load_model(chosen, "none"), theirs


def _points(config: RunConfig, table: torch.Tensor, width: int) -> np.ndarray:
    """Return what is clustered of a table (V, n): the vectors in the embedding's coordinates where n is the embedding's `width`."""
    return (
        method(config.embedding.name).coordinates(config.embedding, table)
        if table.shape[1] == width
        else table
    ).numpy()


def clustering_device(config: RunConfig) -> torch.device | None:
    """Return the GPU that finds the tokens' clusters, or None for the CPU: where the run has none, or is `deterministic`."""
    gpu = config.device != "cpu" and not config.deterministic and torch.cuda.is_available()
    # With its number: the threads that look for nearest centroids would each take the first GPU.
    return torch.device("cuda", torch.cuda.current_device()) if gpu else None


def swap(
    config: RunConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    counts: np.ndarray,
) -> tuple[SizePart, FitPart]:
    """Replace the model's embedding in place; return the record's `size` and `fit`.

    `counts` (V,) is how often each token occurs in the training rows.
    """
    embedding, table = config.embedding, pretrained.table(model)
    chosen = method(embedding.name)
    module, codes = compressed(config, model, tokenizer, texts)

    # Measure the fit on the module as it is before any training.
    padding = cast(int | None, tokenizer.pad_token_id)
    fit: FitPart = {
        "relative_error": None,
        "decile_errors": None,
        "distinct_codes": None if codes is None else codes.distinct,
        "codes_sha256": None if codes is None else codes.sha256,
        "codes_device": None if codes is None else codes.device,
    }
    # Of a trimmed vocabulary, what is left is the table's.
    if not (chosen.trims_tokenizer or (isinstance(embedding, TablesConfig) and embedding.init == "random")):
        missed, norms = squared_errors(module, table, padding)
        fit["relative_error"] = relative_error(missed, norms)
        fit["decile_errors"] = decile_errors(
            missed, norms, counts if padding is None else np.delete(counts, padding)
        )
    pretrained.swap_embedding(model, module)
    size = chosen.size(embedding, len(table), table.shape[1], codes is not None and codes.stored)
    dense = method("dense").size(DenseConfig(), len(table), table.shape[1], codes_stored=False)
    return sizes(model, module, size, dense, config.body), fit


def save(config: RunConfig, model: PreTrainedModel, folder: Path) -> None:
    """Write the run's trained model to `folder`, whole or not at all, in place of a former model.

    Raises EnvironmentBroken if the folder cannot be written.
    """
    codes_stored = bool(getattr(model.get_input_embeddings(), "codes_stored", False))
    assignment = assignment_of(config)
    if assignment is not None:
        # Codes that are not stored need no corpus, and a file's name means nothing on another machine.
        assignment = replace(assignment, corpus=AssignmentConfig.corpus)
    with store.atomic(folder) as temporary:
        storage.save_compressed(model, temporary, config.embedding, codes_stored, assignment, config.body)


def vocabulary_of(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, texts: Texts, vocab_size: int
) -> Vocabulary | None:
    """Return the tokens' counts in the corpus, or None where neither embedding nor assignment depends on them."""
    chosen, assignment = method(config.embedding.name), assignment_of(config)
    power = assignment.frequency_power if isinstance(assignment, ClusteredConfig) else 0.0
    if isinstance(config.embedding, LowRankConfig):
        power = config.embedding.frequency_power
    if not (power or chosen.needs_counts(config.embedding)):
        return None
    unknown = cast(
        int, tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.pad_token_id
    )
    counts = cached_counts(tokenizer, texts(), vocab_size, Path(config.cache_dir))
    characters = None
    if chosen.trims_tokenizer:
        characters, counts = character_counts(tokenizer, counts), with_ancestors(tokenizer, counts)
    return Vocabulary(counts, tuple(tokenizer.all_special_ids), unknown, power, characters)


def _clustered(vocabulary: Vocabulary, kept: int, padding: int | None) -> np.ndarray | None:
    """Return each token's weight in clustering, (V,): 0 for a token with a kept row. None: all weights are equal."""
    if not (vocabulary.power or kept):
        return None
    weights = np.ones(len(vocabulary.counts)) if vocabulary.weights is None else vocabulary.weights.copy()
    weights[vocabulary.most_frequent(kept, padding)] = 0
    return weights


def _token_vectors(
    config: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Texts
) -> TokenVectors:
    """Return the tokens' vectors in context, computed only if neither their codes nor they are cached.

    Codes of all sizes and seeds share them.
    """
    read = texts()
    key = vectors_key(model, rules_sha256(tokenizer), read)
    path = Path(config.cache_dir) / "vectors" / f"{store.key(bench.assignment.VERSION, key)}.safetensors"
    return TokenVectors(
        key,
        lambda: store.cached_array(path, lambda: token_vectors(model, tokenizer, read, batch_size=64)),
    )
