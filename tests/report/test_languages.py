"""What a smaller embedding costs each language: losses, who is hurt, the text and tokens of each, and the rank correlations."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr, t

from bench.report import brief, write_report
from bench.report.breakdown import breakdown_table
from bench.report.languages import MOST_SHOWN, choice, costs, shown
from bench.report.runs import to_frame
from bench.report.scores import ALL, SIZE, score_table, sections
from bench.settings.schema import ReportConfig, RunConfig
from bench.statistics import rank_correlation
from bench.store import Record
from tests.report.factory import record
from tests.report.test_brief import text

LANGUAGES = ["en", "fr", "de", "es", "ru", "ar", "th", "sw"]
PASSAGES = dict(zip(LANGUAGES, [800, 700, 600, 500, 400, 300, 200, 100], strict=True))
DENSE = (
    np.array([[80, 75, 74, 76, 70, 68, 66, 60], [81, 74, 73, 77, 71, 69, 65, 61]]) / 100
)  # (seeds, languages)
LOSSES = np.array([[0.5, 1, 1.1, 1.2, 1.6, 2.2, 3, 7], [0.7, 0.9, 1.2, 1.4, 1.4, 2, 3.4, 8]]) / 100


def spoken(
    method: str,
    seed: int,
    scores: np.ndarray,
    *,
    text: bool = True,
    facts: bool = True,
    passages: dict[str, int] = PASSAGES,
) -> Record:
    """Return a record of a task in these languages, whose recovery knows how much text each has."""
    made: Any = record(method, "rte", seed, float(np.mean(scores)))
    made["metrics"] |= {
        f"validation/{name}": {"accuracy": float(score)}
        for name, score in zip(LANGUAGES, scores, strict=True)
    }
    made["config"]["task"]["columns"] = ["premise", "hypothesis"]
    if facts:
        made["task"]["splits"]["validation"]["languages"] = {
            name: {"rows": 1000, "tokens": 30_000 + 2000 * place, "distinct_tokens": 4000 - place}
            for place, name in enumerate(LANGUAGES)
        }
        made["size"]["tokenizer_bytes"] = 8_764_702
    if text:
        made["recovery"] = {"name": "distil", "texts": 5000, "languages": passages}
    return made


def golden(**changes: Any) -> list[Record]:
    return [
        *(spoken("dense", seed, DENSE[seed], text=False) for seed in (0, 1)),
        *(spoken("pq8", seed, DENSE[seed] - LOSSES[seed], **changes) for seed in (0, 1)),
    ]


def test_each_language_has_its_paired_loss_its_share_of_text_and_its_tokens(tmp_path: Path) -> None:
    write_report(golden(), [], tmp_path)
    lines = pd.read_csv(tmp_path / "tables" / "languages--minilm--rte.csv")
    lines = lines[lines.configuration.str.startswith("pq")].set_index("language").loc[LANGUAGES]
    low, high = t.interval(0.95, 1, -100 * LOSSES.mean(0), 100 * LOSSES.std(0, ddof=1) / np.sqrt(2))
    np.testing.assert_allclose(lines.difference_to_dense, -100 * LOSSES.mean(0))
    np.testing.assert_allclose(lines[["difference_ci95_low", "difference_ci95_high"]].T, [low, high])
    np.testing.assert_allclose(lines["mean"], 100 * (DENSE - LOSSES).mean(0))
    np.testing.assert_allclose(lines.share_of_text, np.array(list(PASSAGES.values())) / 3600)
    np.testing.assert_allclose(lines.tokens_per_text, 15 + np.arange(8))
    assert list(lines.distinct_tokens) == list(range(4000, 3992, -1))
    # The mean loses 2.3 points: twice that and one point are 5.7.
    assert list(lines.index[lines.hurt]) == ["sw"]


def test_tokens_are_those_of_the_configurations_own_tokenizer(tmp_path: Path) -> None:
    records = golden()
    for made in records[2:]:
        for place, facts in enumerate(made["task"]["splits"]["validation"]["languages"].values()):
            facts |= {"tokens": 90_000 - 5000 * place, "distinct_tokens": 100}
    write_report(records, [], tmp_path)
    lines = pd.read_csv(tmp_path / "tables" / "languages--minilm--rte.csv").set_index("language")
    dense, ours = (lines[lines.configuration.str.startswith(name)].loc[LANGUAGES] for name in ("dense", "pq"))
    np.testing.assert_allclose(dense.tokens_per_text, 15 + np.arange(8))
    np.testing.assert_allclose(ours.tokens_per_text, 45 - 2.5 * np.arange(8))
    assert set(ours.distinct_tokens) == {100}
    table = (tmp_path / "tables" / "languages--minilm--rte.md").read_text(encoding="utf-8")
    assert "Swahili (2.78 % of the text)<br>22.0 tokens a text<br>3,993 different" in table
    found = spearmanr(45 - 2.5 * np.arange(8), LOSSES.mean(0)).statistic
    assert f"| −{-found:.2f} \\[−1.00, " in table


def test_the_page_for_people_says_who_is_hurt_and_whether_smaller_languages_lose_more(tmp_path: Path) -> None:
    write_report(golden(), [], tmp_path)
    found = spearmanr(list(PASSAGES.values()), LOSSES.mean(0)).statistic
    for name in ("tables/languages--minilm--rte.md", "INDEX.md"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert (
            "the mean of 8 languages loses 2.3 points, Swahili 7.5; hurt: Swahili; rank correlation" in page
        )
        assert f"−{-found:.2f} \\[−1.00, " in page and "languages with less text lose more" in page
    table = (tmp_path / "tables" / "languages--minilm--rte.md").read_text(encoding="utf-8")
    assert "Swahili (2.78 % of the text)<br>22.0 tokens a text<br>3,993 different" in table
    assert (tmp_path / "figures" / "language-losses--minilm--rte.png").is_file()
    dots = pd.read_csv(tmp_path / "figures" / "language-losses--minilm--rte.csv")
    assert sorted(dots.language) == sorted(LANGUAGES)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (LOSSES[:, ::-1], "languages with more text lose more"),
        (LOSSES[:, [0, 7, 2, 5, 4, 3, 6, 1]], "no proof that languages with less text lose more"),
    ],
)
def test_smaller_languages_lose_more_only_if_the_interval_leaves_out_0(
    losses: np.ndarray, said: str, tmp_path: Path
) -> None:
    write_report([*golden()[:2], *(spoken("pq8", s, DENSE[s] - losses[s]) for s in (0, 1))], [], tmp_path)
    assert f": {said}." in (tmp_path / "INDEX.md").read_text(encoding="utf-8")


def test_shares_of_text_that_are_alike_say_nothing_about_who_loses(tmp_path: Path) -> None:
    passages = dict(zip(LANGUAGES, np.linspace(600, 300, 8).round().astype(int).tolist(), strict=True))
    assert max(passages, key=lambda language: passages[language]) == "en"
    write_report(golden(passages=passages | {"en": 599}), [], tmp_path)  # below twice the smallest
    page = (tmp_path / "tables" / "languages--minilm--rte.md").read_text(encoding="utf-8")
    assert "Swahili 7.5; hurt: Swahili." in page and "of the text)" not in page
    assert "the order of nearly equal shares is chance" in page
    shares = pd.read_csv(tmp_path / "tables" / "languages--minilm--rte.csv").share_of_text.dropna()
    assert len(shares) == 8, "the CSV file has them all the same"


def guessing(seed: int) -> Record:
    """Return a record of a configuration smaller than `golden`'s that knows nothing."""
    made: Any = spoken("sequential", seed, np.full(8, 0.5))
    made["task"]["majority"] = 0.5
    return made


def test_the_figure_of_losses_speaks_of_a_table_that_a_reader_would_take(tmp_path: Path) -> None:
    better = [spoken("pq48", seed, DENSE[seed] - LOSSES[seed] / 5) for seed in (0, 1)]
    worst = [guessing(seed) for seed in (0, 1)]
    for name, records, title in (
        ("tolerated", [*golden(), *better], "Product quantisation, 1.19 MB: −0.5 points"),
        (
            "none",
            golden(),
            "Product quantisation, 281 kB: −2.3 points on the mean of 8 languages, −7.5 on Swahili",
        ),
    ):
        write_report([*records, *worst], [], tmp_path / name)
        drawn = (tmp_path / name / "figures" / "language-losses--minilm--rte.svg").read_text(encoding="utf-8")
        shown = re.findall(r"<!-- (.*?) -->", drawn)
        assert title in " ".join(shown).replace("\xa0", " ") and "codes in order, 49.2\xa0kB" not in shown


def test_of_two_tables_of_one_size_the_better_is_taken_and_what_is_taken_is_drawn() -> None:
    """Nine tables, all of the front but the worse of two of 50 bytes, of which the better is the smallest within a point."""
    sizes, scores = [90, 80, 70, 60, 50, 50, 40, 30, 20], [70, 69.9, 69.8, 69.7, 69.2, 69.4, 60, 59, 58]
    fixed: dict[str, Any] = {"column": ALL, "body": "fp32", "kind": "pq", "margin": 1.0}
    fixed |= {"ci95_low": 50.0, "majority": 30.0, "collapsed": 0}
    lines = pd.DataFrame({"config_id": list("abcdefghi"), SIZE: sizes, "mean": scores}).assign(**fixed)
    for part in (
        lines.assign(difference_to_dense=lines["mean"] - 70.0),
        lines[::-1].assign(difference_to_dense=lines["mean"] - 70.0),
    ):
        assert choice(part) == "f"
        drawn = shown(part)
        assert "f" in drawn and "e" not in drawn and drawn == sorted(drawn) and len(drawn) == MOST_SHOWN


def test_records_without_these_facts_have_losses_alone(tmp_path: Path) -> None:
    write_report(golden(text=False, facts=False), [], tmp_path)
    (line,) = [x for x in (tmp_path / "INDEX.md").read_text().splitlines() if x.startswith("- pq")]
    assert line.endswith("loses 2.3 points, Swahili 7.5; hurt: Swahili.")
    assert pd.read_csv(tmp_path / "tables" / "languages--minilm--rte.csv").share_of_text.isna().all()


def test_a_mean_that_gains_hurts_a_language_from_a_loss_of_more_than_a_point() -> None:
    losses = np.tile([-3, -3, -3, -3, -3, 0.9, 1.1, -3], (2, 1)) / 100
    frame = to_frame([*golden()[:2], *(spoken("pq8", s, DENSE[s] - losses[s]) for s in (0, 1))])
    (cost,) = [cost for part in sections(breakdown_table(frame, 1.0)) for cost in costs(part)]
    assert cost.hurt == ["th"] and list(cost.losses)[:2] == ["th", "ar"]
    assert cost.mean_loss == pytest.approx(-2) and cost.losses["ar"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("language", "said", "tokenizer"),
    [
        (
            "en",
            "Hurt (more than twice the mean's loss, plus 1 point): Swahili. Languages with less text",
            "8.76 MB",
        ),
        ("ja", "8 言語の平均は 2.3 ポイント、最大はスワヒリ語の 7.5 ポイント", "（どの構成でも 8.76 MB）"),
    ],
)
def test_the_brief_names_the_languages_that_are_hurt_and_the_tokenizer(
    language: str, said: str, tokenizer: str
) -> None:
    frame = to_frame(golden())
    config = RunConfig(report=ReportConfig(language=language))
    parts = sections(breakdown_table(frame, 1.0))
    seen = text(brief.page(frame, score_table(frame, 1.0), [], [], config, parts))
    assert said in seen and tokenizer in seen


def test_the_japanese_brief_says_in_japanese_what_is_not_official() -> None:
    records: Any = golden()
    for made in records:
        made["task"]["splits"]["train"] |= {"split": "train_subset"}
    frame = to_frame(records)
    config = RunConfig(report=ReportConfig(language="ja"))
    parts = sections(breakdown_table(frame, 1.0))
    seen = text(brief.page(frame, score_table(frame, 1.0), [], [], config, parts))
    assert "rte: 公式のデータではありません（学習データは train_subset の" in seen
    assert " rte の言語別の低下（" in seen and "not official" not in seen


def test_the_rank_correlation_is_scipys_and_its_interval_a_bootstrap() -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 9, 15).astype(float)  # with ties
    y = x + rng.normal(0, 4, 15)
    found = rank_correlation(x, y)
    assert found.mean == pytest.approx(spearmanr(x, y).statistic)
    drawn = []
    for _ in range(2000):
        rows = rng.integers(0, 15, 15)
        drawn.append(spearmanr(x[rows], y[rows]).statistic)
    np.testing.assert_allclose([found.low, found.high], np.percentile(drawn, [2.5, 97.5]), atol=0.06)
    assert rank_correlation(x, y) == found, "the same values give the same bytes"
    assert rank_correlation(x, np.ones(15)).mean is None
    few = rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    assert (few.mean, few.low) == (pytest.approx(-1), None)
