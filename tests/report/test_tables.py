"""Tables for people: budgets, LaTeX that compiles, published numbers beside ours."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import ConfigError
from bench.report import write_report
from bench.report.grid import Grid, latex, to_latex
from bench.report.published import COLUMNS, PAPER, read_published
from tests.report.factory import record

NASTY = 'a_b&c%d$e#f{g}h~i^j\\k<l>m|n[o]"p"\'q`r±s−t×u é 日本 \\input{x}'
needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed (texlive-latex-recommended)"
)


def compiled(text: str, folder: Path) -> str:
    """Return the log of pdflatex, which stops at the first error."""
    (folder / "table.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"],
        cwd=folder,
        capture_output=True,
    )
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0 and (folder / "table.pdf").stat().st_size > 1000, log[-2000:]
    return log


@needs_tex
def test_latex_of_a_report_and_of_nasty_names_compiles_as_it_is(tmp_path: Path) -> None:
    write_report(
        [record(value=0.8), record(value=0.82, seed=1), record("pq8", value=0.7, model="minilm")],
        [],
        tmp_path,
    )
    assert "[Overfull" not in compiled(
        (tmp_path / "tables" / "results--minilm--glue.tex").read_text(encoding="utf-8"), tmp_path
    )
    compiled(
        to_latex(Grid(NASTY, [NASTY, f"{NASTY}\n[b]"], [[NASTY, NASTY], ["[x]", "[1, 2]"]] * 60, 1, NASTY)),
        tmp_path,
    )


def test_latex_shows_every_letter() -> None:
    assert latex("50 % of $x_1 & {y}") == r"50 \% of \$x\_1 \& \{y\}"
    assert latex("日") == "[U+65E5]" and latex("−5 ± 1") == r"$-$5 $\pm$ 1"
    text = to_latex(Grid("t", ["name", "score"], [["a", "1"]], 1))
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_each_budget_has_the_largest_embedding_that_fits(tmp_path: Path) -> None:
    small, large = {"embedding.rows": 24}, {"embedding.rows": 32}
    records = [
        record(),
        *(record("random", value=v, changes=c) for v, c in ((0.9, small), (0.6, large))),
        record("pq48", value=0.7),
    ]
    write_report(records, [], tmp_path)
    table = pd.read_csv(tmp_path / "tables" / "budgets--minilm--glue.csv", keep_default_na=False).set_index(
        "method"
    )
    assert list(table.columns) == ["at most 0.5 % of dense bytes", "at most 4 % of dense bytes"]
    assert table.loc["pq", "at most 4 % of dense bytes"].startswith("pq f=48 Q=60: 70.0")
    larger = table.loc["random", "at most 0.5 % of dense bytes"]
    assert larger.startswith("random f=3 Q=32: 60.0"), "though the smaller one scored better"


def test_published_claims_stand_beside_our_subspace_embeddings(tmp_path: Path) -> None:
    write_report(
        [record(value=0.80), record("pq48", value=0.77), record("sequential", value=0.77)], [], tmp_path
    )
    lines = pd.read_csv(tmp_path / "tables" / "published.csv").set_index(["quantity", "configuration"])
    lost = lines.loc[("lost_points", "sequential f=3 Q=32")]
    assert (lost["number"], lost["ours"], lost["difference"]) == (4, pytest.approx(3), pytest.approx(-1))
    assert "Newcombe" in lost["interval"]
    saved = lines.loc[("saved_parameters", "sequential f=3 Q=32")]
    assert saved["number"] == 99.8 and saved["ours"] == pytest.approx(100 * (1 - 32 / 30522))
    others = "neither dense nor product quantisation, which is another method"
    assert {configuration for _, configuration in lines.index} == {"sequential f=3 Q=32"}, others
    assert "## Published numbers beside ours" in (tmp_path / "INDEX.md").read_text()


def test_the_repository_ships_only_the_claims_of_the_abstract() -> None:
    shipped = read_published(PAPER)
    assert list(zip(shipped.quantity, shipped.number, strict=True)) == [
        ("saved_parameters", "99.8"),
        ("lost_points", "4"),
    ]
    assert set(shipped.table) == {"abstract"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("s,t,1,c,points,4,,,", "line 2: unknown quantity 'points'"),
        ("s,t,1,c,score,about 4,,,", "line 2: number ('about 4')"),
    ],
)
def test_a_published_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "own.csv").write_text(f"{','.join(COLUMNS)}\n{line}\n")
    with pytest.raises(ConfigError, match=f"own.csv, {re.escape(said)}"):
        write_report([record()], [], tmp_path / "out", paper=tmp_path)
    (tmp_path / "own.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="has the columns a, b"):
        read_published(tmp_path)


def test_a_published_score_stands_beside_its_task_and_configuration(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        f"{','.join(COLUMNS)}\nX 2020,Table 3,5,MRPC,score,81.5,minilm,mrpc,pq f=8 Q=64\n"
    )
    records = [
        record("pq8", task, seed, value) for task in ("mrpc", "rte") for seed, value in enumerate((0.8, 0.81))
    ]
    write_report([*records, record("pq48")], [], tmp_path / "out", paper=tmp_path)
    (line,) = pd.read_csv(tmp_path / "out" / "tables" / "published.csv").itertuples()
    assert (line.task, line.configuration, line.difference) == ("mrpc", "pq f=8 Q=64", pytest.approx(-1))
