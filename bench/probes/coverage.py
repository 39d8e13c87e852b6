"""How a text of some domain is covered: by the tokenizer's vocabulary, and by a compressed embedding."""

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
from bench.report.names import embedding_id
from bench.runs.identity import Prepared
from bench.tasks import data as task_data
from bench.text import escape, markdown_table, slug

BADLY = 0.9  # a token is badly fitted where its relative error is above this quantile of the vocabulary's
SHOWN = 30  # terms that lose most


@dataclass(frozen=True)
class Coverage:
    """What `cover` finds out: `facts` by name, and a line a term (term, count, tokens, relative_error, loss)."""

    facts: dict[str, float]
    terms: pd.DataFrame


def text_slug(corpus: str, texts: Sequence[str]) -> str:
    """Return a text's part of a file name: its own name and a digest of its passages.

    Two texts never share it, whatever their files are called, and a text keeps it wherever its file lies.
    """
    digest = store.sha256("\n".join(texts))[:8]
    return f"{slug(Path(corpus).name.lower())}-{digest}"


def cover(run: Prepared, corpus: str) -> tuple[Coverage, str]:
    """Return how the run's model and embedding cover a corpus, and its `text_slug`.

    The corpus is a text file, splits of tasks or "task". Raises DataError for one without words.
    """
    config = run.config
    model, tokenizer = pretrained.load_model(config.model, "none"), load_tokenizer(config.model)
    split = task_data.load_split(config.task, config.data, "train").select_columns(config.task.columns)
    module, _ = swap.compressed(
        config, model, tokenizer, swap.texts_of(config.assignment.corpus, config, split)
    )
    texts = swap.texts_of(corpus, config, split)()
    words = words_of(tokenizer, texts)
    if not words:
        raise DataError(f"--corpus ({corpus}) holds no words: give a text file with one passage a line.")
    errors, unknown = token_errors(module, pretrained.table(model)), cast(int | None, tokenizer.unk_token_id)
    return measure(words, errors, unknown), text_slug(corpus, texts)


def words_of(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Counter[tuple[str, tuple[int, ...]]]:
    """Return how often each word occurs with its tokens; what is one word is the tokenizer's own first cut."""
    found: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pieces: dict[int, list[int]] = {}
        for place, word in enumerate(encoded.word_ids()):
            if word is not None:
                pieces.setdefault(word, []).append(place)
        offsets, ids = cast(Any, encoded["offset_mapping"]), cast(list[int], encoded["input_ids"])
        for places in pieces.values():
            term = text[offsets[places[0]][0] : offsets[places[-1]][1]].strip()
            if any(letter.isalnum() for letter in term):
                found[term.lower(), tuple(ids[place] for place in places)] += 1
    return found


@torch.no_grad()
def token_errors(module: nn.Module, table: torch.Tensor) -> np.ndarray:
    """Return each token's relative error (V,): ||e - e'|| / ||e||."""
    parts = []
    for ids in torch.arange(len(table)).split(8192):
        parts.append((module(ids) - table[ids]).norm(dim=1) / table[ids].norm(dim=1).clamp(min=1e-12))
    return torch.cat(parts).numpy()


def measure(words: Counter[tuple[str, tuple[int, ...]]], errors: np.ndarray, unknown: int | None) -> Coverage:
    """Return rates over the words' occurrences, and the terms by what they lose: occurrences times mean relative error."""
    lines = [
        {
            "term": term,
            "count": count,
            "tokens": len(ids),
            "unknown": unknown in ids,
            "relative_error": float(errors[list(ids)].mean()),
        }
        for (term, ids), count in words.items()
    ]
    frame = pd.DataFrame(lines)
    frame["loss"] = frame["count"] * frame.relative_error
    limit = np.quantile(errors, BADLY)
    tokens, counts = (
        np.concatenate(part)
        for part in zip(
            *((np.array(ids), np.full(len(ids), count)) for (_, ids), count in words.items()), strict=True
        )
    )
    total = frame["count"].sum()
    facts = {
        "words": float(total),
        "different_words": float(len(frame)),
        "tokens_per_word": float(counts.sum() / total),
        "unknown_rate": float(frame["count"][frame.unknown].sum() / total),
        "split_rate": float(frame["count"][frame.tokens > 1].sum() / total),
        "badly_fitted_rate": float(counts[errors[tokens] > limit].sum() / counts.sum()),
        "relative_error": float((frame.loss.sum()) / total),
    }
    return Coverage(facts, frame.sort_values(["loss", "term"], ascending=[False, True], ignore_index=True))


def write_coverage(coverage: Coverage, corpus: str, text: str, run: Prepared, folder: Path) -> list[Path]:
    """Write rates and terms that lose most as <stem>.md, all terms as .csv, the rates for the gate as .json.

    Return the files. The stem is `<text>--<model>--<embedding>`, of the text's slug and the embedding's id: what was
    measured on another text, or with another embedding, stays.
    """
    model, _, method, _ = run.name.split("/")
    embedding = embedding_id(run.canonical)
    stem = f"{text}--{slug(model.lower())}--{embedding}"
    shown = [
        [
            escape(value if isinstance(value, str) else f"{value:.3f}" if isinstance(value, float) else value)
            for value in line
        ]
        for line in coverage.terms.drop(columns="unknown").head(SHOWN).itertuples(index=False)
    ]
    facts = markdown_table(
        ["measure", "value"], [[name, f"{value:,.4g}"] for name, value in coverage.facts.items()], numeric=1
    )
    terms = markdown_table(["term", "occurrences", "tokens", "relative error", "loss"], shown, numeric=4)
    text = f"# Coverage of {escape(Path(corpus).name)}\n\n{facts}\n## Terms that lose most\n\n{terms}"
    store.write_atomically(folder / f"{stem}.md", text)
    store.write_atomically(folder / f"{stem}.csv", coverage.terms.to_csv(index=False))
    corpus_name = slug(Path(corpus).stem.lower())  # by which gate.coverage asks for it
    covered = store.Covered(corpus_name, f"{model}/{method}", embedding, coverage.facts, text)
    store.write_atomically(
        folder / f"{stem}.json", json.dumps(covered._asdict(), indent=1, sort_keys=True) + "\n"
    )
    return [folder / f"{stem}.{kind}" for kind in ("md", "csv", "json")]
