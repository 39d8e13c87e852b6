"""The demonstration: the same ten sentences judged by a dense and by a compressed classifier, for people to read."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import yaml
from rich.table import Table

from bench.errors import ConfigError, EnvironmentBroken, unknown
from bench.export import source
from bench.models import storage
from bench.models.tokenizers import load_tokenizer
from bench.models.trimmed_tokenizer import trimmed_tokenizer
from bench.runs.identity import Prepared
from bench.store import Record
from bench.tasks.data import load_split

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SENTENCES = 10
ROUNDS = 5  # in each, every model judges every sentence once


@dataclass
class Judge:
    """A trained classifier and what it says."""

    name: str
    record: Record
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    shares: list[list[float]] = field(default_factory=list)  # of each label, for each sentence
    seconds: list[float] = field(default_factory=list)  # of each judgement


def tables(overrides: Sequence[str]) -> Iterator[Table | str]:
    """Yield a table for each encoder, or for the one that `model=<name>` chooses, and a line for one that is not installed.

    Classifiers are trained unless cache_dir/demo has them. Raises ConfigError for an encoder without a demonstration, and
    EnvironmentBroken where the only encoder that is asked for is not installed.
    """
    declared = yaml.safe_load(Path(__file__).with_name("demo.yaml").read_text(encoding="utf-8"))
    shows = {show["model"]: show for show in declared["shows"]}
    asked = [override.removeprefix("model=") for override in overrides if override.startswith("model=")]
    for name in asked or shows:
        if name not in shows:
            raise ConfigError(unknown("model of the demo", name, shows))
        try:
            yield _table(declared, shows[name], overrides)
        except EnvironmentBroken as error:
            if asked:
                raise
            yield f"{name} is not shown: {error}"


def _table(declared: dict[str, Any], show: dict[str, Any], overrides: Sequence[str]) -> Table:
    """Train or load both classifiers, let them judge the sentences, and return the table."""
    fixed = [*declared["fixed"], f"model={show['model']}", *overrides]
    kinds = {"dense": ["embedding=dense"], "compressed": declared["compressed"]}
    runs = {name: source.described([*kind, *fixed]) for name, kind in kinds.items()}
    judges = []
    for name, (prepared, record) in runs.items():
        folder, record = source.weights(prepared, record, train=True)
        model = storage.load_compressed(folder)
        tokenizer = trimmed_tokenizer(load_tokenizer(prepared.config.model), model.get_input_embeddings())
        judges.append(Judge(name, record, model, tokenizer))
    sentences = show.get("sentences") or _test_sentences(prepared)
    judge(judges, [text for text, _ in sentences])
    return _drawn(show, prepared, judges, sentences)


def _test_sentences(prepared: Prepared) -> list[tuple[str, str]]:
    """Return the first sentences of the test split with the names of their labels."""
    config = prepared.config
    rows = load_split(config.task, config.data, "test")
    texts, labels = rows[config.task.columns[0]][:SENTENCES], rows["label"][:SENTENCES]
    return [(text, (config.task.labels or [])[label]) for text, label in zip(texts, labels, strict=True)]


@torch.inference_mode()
def judge(judges: Sequence[Judge], texts: Sequence[str]) -> None:
    """Let every judge judge each text alone, by turns, and note what it says and how long it takes.

    On one core, as threads that wait for a shared core would make most of the time.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for number in range(1 + ROUNDS):  # the first round warms up
        for text in texts:
            for each in judges:
                inputs = each.tokenizer(text, return_tensors="pt")
                begun = time.perf_counter()
                logits = each.model(**inputs).logits
                if number:
                    each.seconds.append(time.perf_counter() - begun)
                else:
                    each.shares.append(logits[0].float().softmax(-1).tolist())
    torch.set_num_threads(threads)


def _drawn(
    show: dict[str, Any], prepared: Prepared, judges: Sequence[Judge], sentences: Sequence[Sequence[str]]
) -> Table:
    """Return the table: a line for each sentence, then the score, the sizes and the time of each model."""
    labels = prepared.config.task.labels or []
    table = Table(
        title=f"{prepared.config.model.name}: is the sentence positive or negative?",
        caption=show["about"],
        title_justify="left",
        caption_justify="left",
    )
    for head in ("sentence", "right answer", *(each.name for each in judges)):
        table.add_column(head)
    right = [0] * len(judges)
    for line, (text, label) in enumerate(sentences):
        cells = []
        for number, each in enumerate(judges):
            share, said = max(zip(each.shares[line], labels, strict=True))
            right[number] += said == label
            cells.append(f"{said}, {100 * share:.0f} %" + ("" if said == label else ": wrong"))
        table.add_row(text, label, *cells, end_section=line == len(sentences) - 1)

    table.add_row("right, of these", "", *(f"{count} of {len(sentences)}" for count in right))
    for fact, cells in _facts(prepared, judges).items():
        table.add_row(fact, "", *cells)
    return table


def _facts(prepared: Prepared, judges: Sequence[Judge]) -> dict[str, list[str]]:
    """Return what the records and the clock say of each model, by the words of the line."""
    rows = prepared.config.task.official_rows["test"]
    return {
        f"right, of the {rows} English test sentences": [_accuracy(each) for each in judges],
        "embedding": _megabytes(judges, "embedding_bytes"),
        "whole model": _megabytes(judges, "total_bytes"),
        "time for a sentence, on one core": [
            f"{1000 * statistics.median(each.seconds):.1f} ms" for each in judges
        ],
    }


def _accuracy(each: Judge) -> str:
    headline = each.record["headline"]
    return f"{100 * headline['value']:.1f} %" if headline else ""


def _megabytes(judges: Sequence[Judge], key: str) -> list[str]:
    """Return each model's size in MB, and what it saves of the first one's."""
    first, *others = (cast(Any, each.record["size"])[key] for each in judges)
    return [
        f"{first / 1e6:,.1f} MB",
        *(f"{o / 1e6:,.1f} MB, {100 - 100 * o / first:.1f} % less" for o in others),
    ]
