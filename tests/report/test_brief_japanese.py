"""The Japanese brief is Japanese: of Latin letters it shows names, keys, commands and units only, and no text of the English page."""

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from bench.report import brief
from bench.report.runs import to_frame
from bench.report.scores import score_table
from bench.settings.schema import PriceConfig, ReportConfig, RunConfig
from bench.store import STATUSES, Covered, Record
from bench.tasks.metrics import METRICS
from tests.report.factory import record
from tests.report.test_brief import PRICES, golden, text

SUBSET = {"task.splits": {"train": "train_subset", "validation": "train_subset"}}
RANDOM = {"model.weights": "random"}
COVERED = [Covered("notes", "minilm/pq", "0" * 12, {"unknown_rate": 0.031, "badly_fitted_rate": 0.25})]
PROBLEMS = [("runs/half.json", "it is cut in half")]
FAILED = [
    record("pq16", "cola", status=status, seed=seed, message="RuntimeError: no room")
    for seed, status in enumerate(STATUSES[1:])
]
MARKED = [
    record(method, task, value=value, **changed)
    for method, value in (("dense", 0.8), ("pq48", 0.798))
    for task, changed in (("mrpc", {"limit": 1000}), ("rte", {"changes": SUBSET}), ("stsb", {}), ("cola", {}))
]
COLLAPSED = [record(method, "entailment", seed, 0.5) for method in ("dense", "pq8") for seed in (0, 1)]
for one in COLLAPSED:
    one["training"]["collapsed"] = True  # type: ignore[index]
MARKED[0]["provenance"]["dirty"] = True
OTHERS = [record(model="bert", changes=RANDOM), record("pq8", model="bert", changes=RANDOM)]
PAGES: dict[str, tuple[list[Record], dict[str, Any]]] = {
    "found, with subsets, failures and an unreadable record": (
        [*MARKED, *FAILED, record("pq8", "cola", seed=7), *OTHERS],
        {"tolerated_loss": 1.0},
    ),
    "none, collapsed": (COLLAPSED, {"tolerated_loss": 0.0}),
    "several seeds": (golden(batch1=12.0, batch32=64.0), {}),
    "incomplete": (
        [record(), record(task="rte"), record("pq8"), record("pq8", "rte", status="oom"), record("pq16")],
        {},
    ),
    "random weights": (OTHERS, {}),
    "no run": ([record(status="failed"), record("pq8", status="oom")], {}),
    "no dense model": ([record("pq8")], {}),
    "only the dense model": ([record()], {}),
    "a task without a run": ([record(), record("pq8")], {"tasks": ["mrpc", "qnli"]}),
    "nothing on every task": ([record("pq8"), record("pq16", task="rte"), record(task="rte")], {}),
}
NAMES = set(
    re.findall(
        r"\w+",
        """
    pq dense sequential f Q minilm all l v bert  GLUE glue lexical other  mrpc rte stsb cola ax mnli qnli qqp sst wnli entailment lexical_entailment
    lexical_sentiment  train train_subset validation  notes runs half json INDEX md conf price example yaml CPU
    bench coverage  report tasks embedding price_per_gpu_hour  A B C D ABCD ID SHA USD GB MB kB ms
    make latency SWEEP sweep ARGS device cuda a cpu GPU torch int int8 int4  distil t
""",
    )
)


def pages(name: str, price: PriceConfig = PRICES) -> Iterator[str]:
    """Yield the English and the Japanese page of the records."""
    records, asked = PAGES[name]
    frame = to_frame(records)
    for language in ("en", "ja"):
        config = RunConfig(report=ReportConfig(language=language, **asked), price=price)
        yield brief.page(frame, score_table(frame, 1.0), PROBLEMS, COVERED, config)


def leaves(part: Any) -> Iterator[str]:
    """Yield every text in nested lists and mappings."""
    if isinstance(part, dict | list):
        for value in part.values() if isinstance(part, dict) else part:
            yield from leaves(value)
    elif isinstance(part, str):
        yield part


def seen(page: str) -> str:
    """Return what a reader can come to see or hear: the text, labels for screen readers, and what the script puts in its place."""
    data = re.search(r'id="data">(.*?)</script>', page, re.S)
    later = [re.sub(r"\{\w+\}", " ", part) for part in leaves(json.loads(data[1]))] if data else []
    return "\n".join(
        [text(page), *map(html.unescape, re.findall(r'(?:aria-label|title|alt)="([^"]*)"', page)), *later]
    )


@pytest.mark.parametrize("price", [PRICES, PriceConfig(name="unset")], ids=["prices", "no prices"])
@pytest.mark.parametrize("name", PAGES)
def test_no_english_is_on_the_japanese_page(name: str, price: PriceConfig) -> None:
    english, japanese = map(seen, pages(name, price))
    written = yaml.safe_load((brief.HERE / "en.yaml").read_text(encoding="utf-8"))
    fragments = {piece.strip(" .,;:()") for words in leaves(written) for piece in re.split(r"\{\w+\}", words)}
    sentences = {piece for piece in fragments if re.search("[a-z]{3}", piece) and piece not in NAMES}
    assert sum(piece in english for piece in sentences) > 20
    assert [piece for piece in sentences if re.search(rf"\b{re.escape(piece)}\b", japanese, re.ASCII)] == []
    without_digests = re.sub(r"\b(?=\w*\d)[0-9a-f]{7,}\b", "", japanese, flags=re.ASCII)
    assert set(re.findall(r"[A-Za-z][A-Za-z_]*", without_digests)) - NAMES == set()


def test_marks_and_failures_are_said_in_japanese() -> None:
    english, japanese = map(text, pages("found, with subsets, failures and an unreadable record"))
    assert (
        "mrpc: trained or tested on other rows than the official ones (train (1,000 of 3,668 rows))"
        in english
        and "（学習データは train の 3,668 件のうち 1,000 件）" in japanese
    )
    assert (
        "evaluated on train_subset (249 of 2,490 rows)" in english
        and "評価データは train_subset の 2,490 件のうち 249 件" in japanese
    )
    assert (
        "ピアソンの相関係数 × 100 · 評価データ validation" in japanese
        and "minilm (all-minilm-l6-v2)（" not in japanese
        and "bert（重みは乱数）" in japanese
    )
    assert (
        "failed (RuntimeError: no room)." in english
        and "シード 0: 失敗。内容は INDEX.md にあります。" in japanese
    )
    assert "not measured (1 out of memory)" in text(
        next(pages("incomplete"))
    ) and "未測定（メモリ不足 1 件）" in text([*pages("incomplete")][1])


@pytest.mark.parametrize("language", brief.LANGUAGES)
def test_every_status_and_metric_has_words(language: str) -> None:
    words = yaml.safe_load((brief.HERE / f"{language}.yaml").read_text(encoding="utf-8"))
    assert set(words["statuses"]) == set(STATUSES) and set(words["metrics"]) == set(METRICS)
