"""From records alone to tables, figures, INDEX.md and brief.html. Needs no GPU, no weights and no torch."""

from collections import defaultdict
from pathlib import Path

import jinja2
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.report import (
    brief,
    completeness,
    figures,
    figures_cost,
    figures_tasks,
    languages,
    questions,
    regimes,
    tables,
)
from bench.report.breakdown import breakdown_table
from bench.report.grid import Grid, to_latex, to_markdown
from bench.report.latency import side_by_side
from bench.report.published import PAPER, TITLE, beside, published_grid, read_published
from bench.report.replicates import with_replicates
from bench.report.runs import ids_sha256, to_frame
from bench.report.scores import ALL, score_table, sections
from bench.report.style import FIGURES, write_figure
from bench.settings.schema import RunConfig
from bench.store import Record, read_coverage
from bench.text import escape, slug

__all__ = [
    "figures",
    "figures_cost",
    "figures_tasks",
    "questions",
    "regimes",
    "write_report",
]  # the modules register their figures


def write_report(
    records: list[Record],
    problems: list[tuple[Path, str]],
    results_dir: Path,
    *,
    config: RunConfig | None = None,
    paper: Path = PAPER,
) -> list[Path]:
    """Write `tables/`, `figures/`, `INDEX.md` and `brief.html` in `results_dir`, and return the files.

    The same records give the same bytes. `problems` are unreadable records (path, reason), which the report names; `config` holds
    the brief's question and the loss in points that is tested against; `paper` is the folder of published numbers.
    Raises BenchError without records, ConfigError for a loss below zero and for scores that must not share a column,
    EnvironmentBroken if `results_dir` cannot be written.
    """
    config = config or RunConfig()
    threshold = config.report.tolerated_loss
    if not threshold >= 0:
        raise ConfigError(
            f"report.tolerated_loss ({threshold:g}) must be 0 or greater: it is a loss in points."
        )
    if not records:
        unread = f" ({len(problems)} could not be read, the first: {problems[0][1]})" if problems else ""
        raise BenchError(
            f"No records in {results_dir / 'runs'}{unread}: run `make sweep` first, or set results_dir."
        )

    # The frames: everything below reads these.
    runs = with_replicates(to_frame(records), records, results_dir)
    scores = regimes.beside(score_table(runs, threshold))
    breakdown = breakdown_table(runs, threshold)
    published = beside(read_published(paper), scores)
    named = [(_relative(path, results_dir), reason) for path, reason in problems]

    # The files.
    texts = _tables(runs, scores, breakdown, published)
    covered, spoken = read_coverage(results_dir), sections(breakdown)
    texts["brief.html"] = brief.page(runs, scores, named, covered, config, spoken)
    parts = [*sections(scores), *spoken]
    try:
        written = [_write(results_dir / name, text) for name, text in texts.items()]
        shown, drawn = _draw(parts, results_dir)
        index = _index(runs, parts, shown, named, published)
        written += [*drawn, _write(results_dir / "INDEX.md", index)]
        _remove_older(results_dir, written)
    except OSError as error:
        raise EnvironmentBroken(f"results_dir ({results_dir}) cannot be written: {error}.") from error
    return written


def _tables(
    runs: pd.DataFrame, scores: pd.DataFrame, breakdown: pd.DataFrame, published: pd.DataFrame
) -> dict[str, str]:
    """Return file name -> content of the long tables, and of those for people as Markdown, LaTeX and CSV."""
    # Tables for programs.
    frames = {
        "completeness": completeness.completeness(runs),
        "failures": tables.failures(runs),
        "runs": tables.runs(runs),
        **{
            name: tables.results(table)
            for name, table in (("results", scores), ("breakdown", breakdown))
            if len(table)
        },
        **({"published": published} if len(published) else {}),
    }
    spoken = {
        _stem("languages", part): part for part in sections(breakdown) if len(languages.language_table(part))
    }
    frames |= {
        stem: languages.language_table(part)[languages.LANGUAGE_COLUMNS] for stem, part in spoken.items()
    }
    texts = {f"tables/{name}.csv": tables.csv(frame) for name, frame in frames.items()}
    texts["tables/completeness.md"] = completeness.page(frames["completeness"])

    # Tables for people.
    grids: dict[str, Grid] = {}
    for name, table in (("results", scores), ("breakdown", breakdown)):
        grids |= {_stem(name, part): tables.results_grid(part) for part in sections(table)}
    grids |= {_stem("budgets", part): tables.budget_grid(part) for part in sections(scores)}
    grids |= {stem: languages.grid(part) for stem, part in spoken.items()}
    grids["published"] = published_grid(published)
    for stem, grid in grids.items():
        if grid.rows:
            how = "" if grid.title == TITLE or stem in spoken else tables.HOW_TO_READ
            rows = tables.csv(pd.DataFrame(grid.rows, columns=grid.header))
            texts[f"tables/{stem}.md"] = f"# {escape(grid.title)}\n\n{how}\n{to_markdown(grid)}"
            texts[f"tables/{stem}.tex"] = to_latex(grid._replace(notes=f"{how} {grid.notes}".strip()))
            texts.setdefault(f"tables/{stem}.csv", rows)
    return texts


def _draw(
    parts: list[pd.DataFrame], results_dir: Path
) -> tuple[dict[int, list[tuple[str, str]]], list[Path]]:
    """Write each section's figures. Return section -> title and image of each figure, and all files."""
    (results_dir / "figures").mkdir(exist_ok=True)
    jobs = [
        (place, figure)
        for place, part in enumerate(parts)
        for figure in FIGURES
        if figure.of_breakdown == _is_breakdown(part)
    ]
    # Drawing is most of the time, but a process takes two seconds to start: only many figures are worth several.
    drawn = Parallel(n_jobs=min(cpu_count(), 1 + len(jobs) // 20))(
        delayed(write_figure)(
            figure, parts[place], results_dir / "figures" / _stem(figure.name, parts[place])
        )
        for place, figure in jobs
    )
    shown = defaultdict(list)
    for (place, _), (title, files) in zip(jobs, drawn, strict=True):
        if files:
            shown[place].append((title, f"figures/{files[0].name}"))
    return shown, [path for _, files in drawn for path in files]


def _remove_older(results_dir: Path, written: list[Path]) -> None:
    """Delete tables and figures of an earlier report, such as <what>--<model>--<suite>, that this report has no data for."""
    single = ("breakdown", "published", "coverage", "parts")  # the last two: earlier names of two tables
    patterns = ("figures/*--*--*.*", "tables/*--*--*.*", *(f"tables/{name}.*" for name in single))
    for path in {path for pattern in patterns for path in results_dir.glob(pattern)} - {*written}:
        path.unlink()


def _index(
    runs: pd.DataFrame,
    parts: list[pd.DataFrame],
    shown: dict[int, list[tuple[str, str]]],
    problems: list[tuple[str, str]],
    published: pd.DataFrame,
) -> str:
    """Return INDEX.md. It holds no time and no path of this machine, so that equal records give equal bytes."""
    complete, failed = completeness.completeness(runs), tables.failures(runs)
    context = {
        "provenance": _provenance(runs),
        "counts": completeness.counts(complete),
        "summary": completeness.summary(complete),
        "failures": tables.as_markdown(failed) if len(failed) else "",
        "problems": problems,
        "how_to_read": tables.HOW_TO_READ,
        "sections": [_section(part, runs, shown.get(place, [])) for place, part in enumerate(parts)],
        "published": to_markdown(published_grid(published)) if len(published) else "",
        "published_title": TITLE,
        "cautions": tables.cautions(runs),
    }
    # No autoescape: the page is Markdown.
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["md"] = escape
    return environment.get_template("index.md.j2").render(context).rstrip("\n") + "\n"


def _section(part: pd.DataFrame, runs: pd.DataFrame, figures: list[tuple[str, str]]) -> dict[str, object]:
    """Return what INDEX.md shows of a section."""
    first, budgets, best = part.iloc[0], tables.budget_grid(part), tables.best_grid(part)
    scores = {row["config_id"]: tables.cell_text(row) for row in part[part.main].to_dict("records")}
    return {
        "title": f"{first.title} on {first.suite}",
        "newest": first.newest,
        "figures": figures,
        "best_title": best.title,
        "best": to_markdown(best) if best.rows and not _is_breakdown(part) else "",
        "breakdown": _is_breakdown(part),
        "languages": languages.sentences(part),
        "table": to_markdown(tables.results_grid(part)),
        "costs": side_by_side(part, runs, scores),
        "budgets_title": budgets.title,
        "budgets": to_markdown(budgets) if budgets.rows and not first.no_mean else "",
    }


def _is_breakdown(part: pd.DataFrame) -> bool:
    """Return whether the section is a task's languages or categories rather than a suite's tasks."""
    return ALL in set(part.column)


def _provenance(runs: pd.DataFrame) -> str:
    """Return a line: number of records, digest over their ids, commits and devices."""
    known = runs.dropna(subset=["provenance.commit"])
    commits = sorted(set(zip(known["provenance.commit"], known.dirty, strict=True)))
    shown = [f"{commit} (with uncommitted changes)" if dirty else str(commit) for commit, dirty in commits]
    devices = sorted(runs["provenance.device"].dropna().unique())
    return (
        f"{len(runs):,} records, SHA-256 of their ids {ids_sha256(runs)}; commits: {escape(', '.join(shown) or 'unknown')}; "
        f"devices: {escape(', '.join(devices) or 'unknown')}."
    )


def _stem(name: str, part: pd.DataFrame) -> str:
    return slug(name, part.recorded_as.iloc[0], part.suite.iloc[0])


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
