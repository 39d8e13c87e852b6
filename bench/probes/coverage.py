"""How the tokenizer's vocabulary and a compressed embedding cover the text of a domain."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from bench import store
from bench.errors import DataError
from bench.models import pretrained, swap
from bench.models.tokenizers import load_tokenizer
from bench.models.trimmed_tokenizer import trimmed_tokenizer
from bench.report.names import embedding_id
from bench.runs.identity import Prepared
from bench.tasks import data as task_data
from bench.text import amount, escape, markdown_table, slug

BADLY = 0.9  # a token is badly fitted if its relative error exceeds this quantile of the vocabulary's
SHOWN = 30  # terms with the greatest loss


@dataclass(frozen=True)
class Coverage:
    """Coverage of a text: `facts` by name, and a line for each term (term, count, tokens, relative_error, loss)."""

    facts: dict[str, float]
    terms: pd.DataFrame


def text_slug(corpus: str, texts: Sequence[str]) -> str:
    """Return a text's part of a file name: the name of its file and a digest of its passages.

    Different texts have different parts, whatever their files are called. The folder of the file has no influence.
    """
    digest = store.sha256("\n".join(texts))[:8]
    return f"{slug(Path(corpus).name.lower())}-{digest}"


def cover(run: Prepared, corpus: str) -> tuple[Coverage, str]:
    """Return how the run's model and embedding cover a corpus, and the corpus's `text_slug`.

    The corpus is a text file, splits of tasks or "task". Raises DataError for a corpus without words.
    """
    config = run.config
    model, tokenizer = pretrained.load_model(config.model, "none"), load_tokenizer(config.model)
    split = task_data.load_split(config.task, config.data, "train").select_columns(config.task.columns)
    module, _ = swap.compressed(
        config, model, tokenizer, swap.texts_of(config.assignment.corpus, config, split)
    )
    texts = swap.texts_of(corpus, config, split)()
    words = words_of(trimmed_tokenizer(tokenizer, module), texts)
    if not words:
        raise DataError(f"--corpus ({corpus}) contains no words: give a text file with one passage a line.")
    errors, unknown = token_errors(module, pretrained.table(model)), cast(int | None, tokenizer.unk_token_id)
    return measure(words, errors, unknown), text_slug(corpus, texts)


def words_of(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Counter[tuple[str, tuple[int, ...]]]:
    """Return the count of each word with its tokens. Words are those of the tokenizer's first split."""
    words: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pieces: dict[int, list[int]] = {}
        for position, word in enumerate(encoded.word_ids()):
            if word is not None:
                pieces.setdefault(word, []).append(position)
        offsets, ids = cast(Any, encoded["offset_mapping"]), cast(list[int], encoded["input_ids"])
        for positions in pieces.values():
            term = text[offsets[positions[0]][0] : offsets[positions[-1]][1]].strip()
            if any(letter.isalnum() for letter in term):
                words[term.lower(), tuple(ids[position] for position in positions)] += 1
    return words


@torch.no_grad()
def token_errors(module: nn.Module, table: torch.Tensor) -> np.ndarray:
    """Return each token's relative error (V,): ||e - e'|| / ||e||."""
    parts = []
    for ids in torch.arange(len(table)).split(8192):
        parts.append((module(ids) - table[ids]).norm(dim=1) / table[ids].norm(dim=1).clamp(min=1e-12))
    return torch.cat(parts).numpy()


def measure(words: Counter[tuple[str, tuple[int, ...]]], errors: np.ndarray, unknown: int | None) -> Coverage:
    """Return rates over the words' occurrences, and the terms by loss: occurrences times mean relative error.

    `errors` (V,) are the tokens' relative errors, `unknown` is the id of the token for unknown words.
    """
    lines = [
        (term, count, len(ids), unknown in ids, float(errors[list(ids)].mean()))
        for (term, ids), count in words.items()
    ]
    frame = pd.DataFrame(lines, columns=["term", "count", "tokens", "unknown", "relative_error"])
    frame["loss"] = frame["count"] * frame.relative_error
    tokens = np.concatenate([ids for _, ids in words])
    counts = np.repeat(frame["count"].to_numpy(), frame.tokens)
    limit, total = np.quantile(errors, BADLY), frame["count"].sum()
    facts = {
        "words": float(total),
        "different_words": float(len(frame)),
        "tokens_per_word": float(counts.sum() / total),
        "unknown_rate": float(frame["count"][frame.unknown].sum() / total),
        "split_rate": float(frame["count"][frame.tokens > 1].sum() / total),
        "badly_fitted_rate": float(counts[errors[tokens] > limit].sum() / counts.sum()),
        "relative_error": float(frame.loss.sum() / total),
    }
    return Coverage(facts, frame.sort_values(["loss", "term"], ascending=[False, True], ignore_index=True))


def write_coverage(coverage: Coverage, corpus: str, text: str, run: Prepared, folder: Path) -> list[Path]:
    """Write the rates and the terms with the greatest loss as .md, all terms as .csv, the rates for the gate as .json.

    Return the files. Their stem is `<text>--<model>--<embedding>`, with the text's slug and the embedding's id, so
    measurements of other texts and embeddings are not overwritten.
    """
    model, _, method, _ = run.name.split("/")
    embedding = embedding_id(run.canonical)
    stem = f"{text}--{slug(model.lower())}--{embedding}"
    paths = [folder / f"{stem}.{ending}" for ending in ("md", "csv", "json")]

    rates = [[name, amount(value)] for name, value in coverage.facts.items()]
    terms = [
        [escape(term), str(count), str(tokens), f"{error:.3f}", f"{loss:.3f}"]
        for term, count, tokens, _, error, loss in coverage.terms.head(SHOWN).itertuples(index=False)
    ]
    head = ["term", "occurrences", "tokens", "relative error", "loss"]
    page = (
        f"# Coverage of {escape(Path(corpus).name)}\n\n{markdown_table(['measure', 'value'], rates, numeric=1)}\n"
        f"## Terms that lose most\n\n{markdown_table(head, terms, numeric=4)}"
    )
    store.write_atomically(paths[0], page)
    store.write_atomically(paths[1], coverage.terms.to_csv(index=False))
    name = slug(Path(corpus).stem.lower())  # the text's name in gate.coverage
    covered = store.Covered(name, f"{model}/{method}", embedding, coverage.facts, text)
    store.write_atomically(paths[2], json.dumps(covered._asdict(), indent=1, sort_keys=True) + "\n")
    return paths
