"""README and the pages of docs/ stay true: commands parse, keys exist, links lead somewhere, numbers are the report's."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys

import pandas as pd
import pytest

from bench.cli.verbs import parse
from bench.report.style import save
from bench.runs.identity import prepare
from bench.settings.choices import CHOICES
from bench.settings.compose import choices, compose_config, type_of
from bench.sweep.plan import load, make
from bench.text import signed
from tests.support.commands import ROOT
from tests.test_makefile import made, project  # noqa: F401 - a fixture

README = ROOT / "README.md"
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (README, *ROOT.glob("docs/*.md"))}
SHELL = {
    name: [
        words
        for block in re.findall(r"```sh\n(.*?)```", text, re.S)
        for line in re.sub(r" *\\\n", " ", block).splitlines()
        if (words := shlex.split(re.sub(r"<[^<>]*>", "x", line), comments=True))
    ]
    for name, text in PAGES.items()
}
SIZES = {"embedding": 2, "total": 1}  # with their digits
SHOWN = [  # heading, model, task and number of rows of each table of results
    ("multilingual-e5-small", "multilingual-e5-small (4-bit weights)", "xnli", 7),
    ("all-MiniLM-L6-v2", "minilm", "mean of cola, mrpc, qnli, rte, sst2, stsb", 2),
]
MAKE = [words[1:] for lines in SHELL.values() for words in lines if words[0] == "make"]


def test_readme_fits_a_screen():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 100 and max(map(len, lines)) <= 120


def test_every_command_is_make_or_bench():
    assert {words[0] for lines in SHELL.values() for words in lines} == {"make", ".venv/bin/python"}


@pytest.mark.parametrize("words", MAKE, ids=" ".join)
def test_what_make_is_told_parses(words, project):  # noqa: F811
    help_ = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(help_, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert words[0] in re.findall(r"^([a-z-]+)", listed, re.M)
    if words[0] in ("test", "lint", "typecheck", "faults"):
        return
    verb, *arguments = made(project, *words)
    free, _ = parse(verb, arguments)
    for key, given, value in (word.lstrip("+?").partition("=") for word in free):
        assert not given or key in ("sweep", "tuned") or type_of(key) is not None, key
        assert key not in ("sweep", "search", "launcher") or value in choices(key)


def test_every_target_is_shown_somewhere():
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    shown = {words[0] for words in MAKE} | set(re.findall(r"`make ([a-z-]+)", "".join(PAGES.values())))
    assert set(re.findall(r"^([a-z-]+)", listed, re.M)) - {"help", "clean"} <= shown


def test_the_runs_that_are_shown_can_start():
    shown = [words for name in SHELL if name != "docs/extend.md" for words in SHELL[name] if "run" in words]
    assert len(shown) >= 2
    for words in shown:
        assert words[:4] == [".venv/bin/python", "-m", "bench", "run"]
        assert prepare(compose_config(words[4:])).run_id


@pytest.mark.parametrize("name", PAGES)
def test_keys_that_are_named_exist(name):
    if name == "docs/CHANGELOG.md":
        pytest.skip("it names keys of the past")
    for key in re.findall(r"[`\"?]([a-z_]+(?:\.[a-z_]+)+)=", PAGES[name]):
        assert type_of(key) is not None, key


@pytest.mark.parametrize("name", PAGES)
def test_links_and_pictures_are_there(name):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]+)?\)", PAGES[name]):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        titles = re.findall(r"^#+ (.*)", path.read_text(), re.M) if anchor else []
        assert not anchor or anchor[1:] in [
            re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles
        ]


def test_the_pages_name_every_method_and_assignment_and_no_sweep_that_is_gone():
    for group in ("embedding", "assignment"):
        assert set(CHOICES[group]) <= set(re.findall(r"^\| `(\w+)`", PAGES["docs/method.md"], re.M))
    table = "".join(re.findall(r"^\| (`.*?`) \|", PAGES["docs/sweeps.md"], re.M))
    assert set(re.findall(r"`(\w+)`", table)) <= set(choices("sweep"))


def test_the_drawing_is_what_its_script_draws(tmp_path):
    spec = importlib.util.spec_from_file_location("draw_method", ROOT / "docs" / "draw_method.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    save(module.draw(), tmp_path / "method.svg")
    assert (tmp_path / "method.svg").read_bytes() == (ROOT / "docs" / "method.svg").read_bytes()


def scores_of(model: str, task: str) -> pd.DataFrame:
    """Return the report's lines of a model on a task, by configuration."""
    scores = pd.read_csv(ROOT / "results" / "tables" / "results.csv")
    return scores[scores.model.eq(model) & scores.task.eq(task)].set_index("configuration")


def points(number: float) -> str:
    return f"{number:.1f}".replace("-0.0", "0.0").replace("-", "−")


@pytest.mark.parametrize(("heading", "model", "task", "count"), SHOWN)
def test_the_results_in_the_readme_and_on_the_japanese_page_are_the_reports(heading, model, task, count):
    scores = scores_of(model, task)
    table = PAGES["README.md"].split(f"| embedding of {heading} |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(.*?)` \| (.*) \|$", table, re.M)
    assert len(rows) == count
    for name, cells in rows:
        row = scores.loc[name]
        stored, total = (f"{row[f'size.{kind}_bytes'] / 1e6:.{digits}f} MB" for kind, digits in SIZES.items())
        mean, low, high = (signed(row[f"difference_{end}"]) for end in ("to_dense", "ci95_low", "ci95_high"))
        dense = name.startswith("dense")
        score = f"{row['mean']:.1f}" if dense else f"{mean} [{low}, {high}]"
        saved = "0 %" if dense else f"{100 * row['size.byte_saving']:.1f} %"
        assert cells.split(" | ") == [stored, saved, total, score]

        (japanese,) = [line for line in PAGES["docs/ja.md"].splitlines() if line.startswith(f"| {stored}")]
        assert f"| {total} |" in japanese
        assert dense or (f"{mean}［{low}," in japanese and saved in japanese)


def test_the_sentence_of_result_is_the_reports():
    text = " ".join(PAGES["README.md"].split("## How it works")[0].split())
    scores = scores_of(*SHOWN[0][1:3])
    row, four_bit, dense = (
        scores.loc[name]
        for name in (
            "pq f=64 Q=64 65536 code rows + distil (steps=12000)",
            "quantised int4 group 32",
            "dense (version=5)",
        )
    )
    share = {
        line.name: 100 * (1 - line["size.total_bytes"] / dense["size.total_bytes"])
        for line in (row, four_bit)
    }
    before, after = (line["size.total_bytes"] / 1e6 for line in (dense, row))
    low, high = points(-row.difference_ci95_high), points(-row.difference_ci95_low)
    assert (
        f"**Removing {100 * row['size.byte_saving']:.1f} % of the embedding made the model {share[row.name]:.0f} % smaller "
        f"({before:.0f} to {after:.0f} MB) for {points(-row.difference_to_dense)} points** of XNLI's accuracy (95 % interval {low} to {high}), "
        "mean of 15 languages; Turkish loses most, 1.2."
    ) in text
    assert f"Plain 4-bit rows made it {share[four_bit.name]:.0f} % smaller with no loss measured" in text
    assert four_bit.difference_to_dense >= 0
    assert (
        f"{100 * dense['size.embedding_bytes'] / dense['size.total_bytes']:.0f} % of multilingual-e5-small"
        in text
    )

    (path,) = (ROOT / "results" / "tables").glob("languages--multilingual-e5-small-*.csv")
    losses = pd.read_csv(path).set_index(["configuration", "language"]).difference_to_dense[row.name]
    assert losses.idxmin() == "tr" and f"{-losses.min():.1f}" == "1.2"


def test_the_seeds_and_limits_in_the_readme_are_the_reports():
    for heading, model, task, _ in SHOWN:
        scores = scores_of(model, task)
        table = PAGES["README.md"].split(f"| embedding of {heading} |")[1].split("\n\n")[0]
        for name in re.findall(r"^\| `(.*?)`", table, re.M):
            row = scores.loc[name]
            assert name.startswith("dense") or row.paired_seeds == 3
            shown = name.startswith("pq f=96")  # "e5's pq at 97.5 % alone"
            assert name.startswith("dense") or (row.p_holm < 0.05) == shown
    tested = scores_of(*SHOWN[0][1:3]).p_holm.notna().sum()
    assert f"corrected for {tested} configurations)" in " ".join(PAGES["README.md"].split())


def test_the_advice_in_the_readme_is_the_briefs():
    brief = (ROOT / "results" / "brief.html").read_text()
    assert "advises a pilot if no language may lose a point" in PAGES["README.md"]
    assert re.search(r'id="advice"[^>]*>[^<]* in a pilot', brief)


def test_the_time_of_a_recovery_in_the_readme_is_the_records():
    parts = [
        json.loads(path.read_text())["recovery"]
        for path in (ROOT / "results" / "runs" / "multilingual-e5-small" / "xnli").glob("*/*.json")
    ]
    minutes = [
        part["seconds"] / part["runs_at_once"] / 60 for part in parts if part and part.get("steps") == 12000
    ]
    assert min(minutes) >= 1 and max(minutes) <= 5
    assert "12,000 steps, one to five minutes of an H200 a model" in PAGES["README.md"]


def test_the_memory_in_the_readme_is_that_of_the_latency_files():
    rows = [
        row
        for path in (ROOT / "results" / "latency").glob("multilingual-e5-small--cpu--*.json")
        for row in json.loads(path.read_text())["rows"]
    ]
    resident = {row["embedding_bytes"]: f"{row['profile']['resident_bytes'] / 1e6:.0f}" for row in rows}
    scores = scores_of(*SHOWN[0][1:3])
    names = (
        "dense (version=5)",
        "quantised int4 group 32",
        "pq f=64 Q=64 65536 code rows + distil (steps=12000)",
    )
    before, four_bit, after = (resident[scores.loc[name, "size.embedding_bytes"]] for name in names)
    said = f"e5's from {before} MB to {four_bit} with 4-bit rows, to {after} with 99.0 % saved"
    assert said in " ".join(PAGES["README.md"].split())


@pytest.mark.parametrize("name", ["demo", "glue_quick"])
def test_the_sweeps_of_the_readme_leave_committed_files_alone(name):
    """Their records and their report go to a folder that git ignores."""
    fixed = load([f"sweep={name}"])[0].cut()[0].fixed
    (folder,) = [key.removeprefix("results_dir=") for key in fixed if key.startswith("results_dir=")]
    assert f"{folder}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_first_command_has_a_folder_that_make_report_and_the_reader_are_told_of():
    folder = make(["sweep=demo"]).config.results_dir
    assert make(["sweep=demo", "results_dir=elsewhere"]).config.results_dir == "elsewhere"
    assert f"make report ARGS=results_dir={folder}`" in PAGES["README.md"]
    assert f"reports in {folder}/INDEX.md" in PAGES["README.md"]


def test_the_lines_of_python_compare_sentences(tmp_path):
    (export,) = [
        words for words in MAKE if words[0] == "export" and "TO=encoder" in words and len(words) == 3
    ]
    flags = shlex.split(export[2].removeprefix("ARGS="))
    bench = [sys.executable, "-m", "bench", "export", "--to", tmp_path / "encoder", *flags]
    subprocess.run([*bench, f"cache_dir={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["README.md"], re.S)
    done = subprocess.run(
        [sys.executable, "-c", code + "print((vectors @ vectors.T).tolist())"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (_, alike, unlike), *_ = eval(done.stdout.splitlines()[-1])
    assert alike > 0.5 > unlike
