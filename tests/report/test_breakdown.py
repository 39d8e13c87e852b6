"""Languages and categories of a task have a table and a figure of their own."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report import write_report
from bench.store import Record
from tests.report.factory import record


def spread(method: str, seed: int, languages: dict[str, float]) -> Record:
    """Return a record whose metrics are those of `languages`, their mean and the gap to English."""
    made = record(method, "rte", seed, float(np.mean(list(languages.values()))))
    assert made["metrics"] is not None
    others = np.mean([value for name, value in languages.items() if name != "en"])
    made["metrics"]["validation"]["gap"] = languages["en"] - float(others)
    made["metrics"] |= {f"validation/{name}": {"accuracy": value} for name, value in languages.items()}
    return made


def test_a_single_language_needs_no_table_of_its_own(tmp_path: Path) -> None:
    alone, plain = spread("dense", 0, {"en": 0.7, "de": 0.6}), record("pq8", "rte", value=0.6)
    write_report([alone, plain], [], tmp_path)
    assert list(tmp_path.rglob("breakdown*"))
    assert alone["metrics"]
    del alone["metrics"]["validation/de"], alone["metrics"]["validation"]["gap"]
    write_report([alone, plain], [], tmp_path)
    assert not list(tmp_path.rglob("breakdown*")) and not list(tmp_path.rglob("languages--*")), (
        "those of the older report go, too"
    )


def test_languages_have_a_table_of_their_own(tmp_path: Path) -> None:
    values = {
        ("dense", 0): {"en": 0.8, "de": 0.6, "sw": 0.5},
        ("dense", 1): {"en": 0.82, "de": 0.64, "sw": 0.5},
        ("pq8", 0): {"en": 0.7, "de": 0.5, "sw": 0.4},
    }
    write_report(
        [spread(method, seed, languages) for (method, seed), languages in values.items()], [], tmp_path
    )
    table = pd.read_csv(tmp_path / "tables" / "breakdown.csv", keep_default_na=False, na_values=[""])
    table = table.set_index(["configuration", "task"])
    german = table.loc[("dense", "de")]
    assert (german["mean"], german["sd"], german["seeds"]) == (
        pytest.approx(62),
        pytest.approx(100 * np.std([0.6, 0.64], ddof=1)),
        "0 1",
    )
    assert table.loc[("pq f=8 Q=64", "de"), "difference_to_dense"] == pytest.approx(-10)
    assert table.loc[("pq f=8 Q=64", "gap"), "difference_to_dense"] == pytest.approx(0, abs=1e-9)
    assert (table["suite"] == "rte").all()
    text = (tmp_path / "tables" / "breakdown--minilm--rte.md").read_text()
    heads = re.findall(r"\| (\w+)<br>", text)
    assert heads == ["all", "gap", "German", "English", "Swahili"], "the split's own score first"
    assert "70.0" in text and "81.0" in text
    dots = pd.read_csv(tmp_path / "figures" / "languages--minilm--rte.csv")
    assert set(dots.column) == {"de", "en", "sw"} and dots[dots.column == "en"][
        "mean"
    ].tolist() == pytest.approx([81, 70])


def test_no_table_of_parts_without_any(tmp_path: Path) -> None:
    write_report([record(), record("pq8")], [], tmp_path)
    assert not (tmp_path / "tables" / "breakdown.csv").exists()
    assert not list((tmp_path / "figures").glob("languages*"))
