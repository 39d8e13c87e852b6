"""What an encoder's vectors of sentences are worth before any task: similar pairs, and translations that are found."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BenchError, DataError, MissingData
from bench.settings.schema import DataConfig, TaskConfig
from bench.tasks.data import Rows, load_split
from bench.tasks.scoring import score
from bench.tasks.specs import read_task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 64  # texts that go through the model at once
log = logging.getLogger("bench")


@dataclass(frozen=True)
class Sentences:
    """What is measured on: STS-B's validation pairs, and XNLI's test premises; empty where the data is missing."""

    pairs: Rows | None
    premises: dict[str, list[str]]  # language -> the same premises in the same order


def read(data: DataConfig) -> Sentences:
    """Return the sentences that are there.

    Raises DataError where there are none, and where a language's rows are not those of the English rows.
    """
    pairs, xnli = _rows(read_task("stsb"), data, "validation"), read_task("xnli")
    found: dict[str, Rows] = {}
    if english := _rows(xnli, data, "test", xnli.train_language):
        found = {str(xnli.train_language): english}
        others = [language for language in xnli.languages if language not in found]
        found |= {language: rows for language in others if (rows := _rows(xnli, data, "test", language))}
    if len(found) < 2:
        if pairs is None:
            raise DataError(
                "--evaluate finds neither STS-B's validation pairs nor XNLI's test premises in English and another "
                "language: set data.root to their folder."
            )
        return Sentences(pairs, {})
    assert english

    # Each premise has three hypotheses: take the first row of each.
    first = {premise: row for row, premise in reversed([*enumerate(english["premise"])])}
    chosen = sorted(first.values())
    for language, rows in found.items():
        if rows["label"] != english["label"]:
            raise DataError(
                f"xnli: the test rows in '{language}' have other labels than the English ones, so they are no "
                "translations in the same order: get both from one release."
            )
    premises = {language: rows.select(np.array(chosen))["premise"] for language, rows in found.items()}
    return Sentences(pairs, premises)


def _rows(task: TaskConfig, data: DataConfig, role: str, language: str | None = None) -> Rows | None:
    try:
        return load_split(task, data, role, language)
    except MissingData as error:
        log.warning("not measured: %s", error)
        return None


def measure(
    model: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    sentences: Sentences,
    prefix: str,
    length: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """Return the measures of a model that returns `sentence_embedding`, moved to `device`, by the data's task.

    `stsb`: pairs, and Spearman's correlation of the cosine with the label, without any training (Reimers & Gurevych,
    EMNLP 2019, section 4.1). `xnli`: premises, and for each language but English the share of premises whose translation
    has the greatest cosine among all, `from_en` and `to_en` (similarity search as in Artetxe & Schwenk, TACL 2019), and their means.
    `prefix` comes before each text; `length` is the most tokens of a text. Raises BenchError for vectors that are not finite.
    """
    model.to(device)

    def vectors(texts: Sequence[str]) -> Tensor:
        return embed(model, tokenizer, [prefix + text for text in texts], length, device)

    measures: dict[str, Any] = {}
    if sentences.pairs is not None:
        task = read_task("stsb")
        first, second = (vectors(sentences.pairs[column]) for column in task.columns)
        cosine = (first * second).sum(1).numpy()
        spearman = score(task, cosine, np.asarray(sentences.pairs["label"]))["spearmanr"]
        measures["stsb"] = {"pairs": len(cosine), "spearmanr": spearman}
    if sentences.premises:
        (_, english), *others = sentences.premises.items()
        known, shares = vectors(english), {}
        for language, texts in others:
            cosines = known @ vectors(texts).T
            shares[language] = {
                "from_en": _found(cosines, texts),
                "to_en": _found(cosines.T, english),
            }
            log.info("%s | found %s", language, shares[language])
        means = {way: float(np.mean([part[way] for part in shares.values()])) for way in ("from_en", "to_en")}
        measures["xnli"] = {"premises": len(english), **means, "languages": shares}
    return measures


def _found(cosines: Tensor, texts: Sequence[str]) -> float:
    """Return the share of rows whose greatest column has the row's own text; a few premises have the same translation."""
    nearest = cosines.argmax(1).tolist()
    return float(np.mean([texts[column] == texts[row] for row, column in enumerate(nearest)]))


@torch.no_grad()
def embed(
    model: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    length: int | None,
    device: torch.device,
) -> Tensor:
    """Return the texts' `sentence_embedding` (N, d) on the CPU; raises BenchError for vectors that are not finite."""
    order = sorted(
        range(len(texts)), key=lambda row: -len(texts[row])
    )  # texts of similar length need little padding
    parts = []
    for start in range(0, len(order), BATCH):
        batch = [texts[row] for row in order[start : start + BATCH]]
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=length, return_tensors="pt")
        parts.append(model(**tokens.to(device)).sentence_embedding.cpu())
    vectors = torch.cat(parts)[np.argsort(order)]
    if not vectors.isfinite().all():
        raise BenchError("The vectors of some texts are NaN or infinite: the encoder cannot be used.")
    return vectors
