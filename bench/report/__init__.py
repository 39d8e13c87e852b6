"""From records alone to tables, figures and INDEX.md. Needs no GPU, no weights and no torch."""

import logging
import warnings
from pathlib import Path

import pandas as pd
from joblib import Parallel, cpu_count, delayed

from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.report import brief, details, figures, scores, tables
from bench.report.domain import read_coverage
from bench.report.frame import to_frame
from bench.report.grid import Grid, to_latex, to_markdown
from bench.report.index import Drawn, index
from bench.report.parts import part_sections
from bench.report.published import PAPER, TITLE, beside, published_grid, read_published
from bench.report.section import Section
from bench.report.summary import sections
from bench.settings.schema import RunConfig
from bench.store import Record
from bench.text import escape, slug

log = logging.getLogger("bench")


def write_report(
    records: list[Record],
    problems: list[tuple[Path, str]],
    results_dir: Path,
    *,
    config: RunConfig | None = None,
    paper: Path = PAPER,
) -> list[Path]:
    """Return the files written: `tables/`, `figures/`, `INDEX.md` and `brief.html` in `results_dir`.

    The same records give the same bytes. `problems` are unreadable records (path, reason) and are named in the report;
    `config` says what the brief is asked, and the loss whose probability is told; `paper` holds published numbers.
    Raises BenchError without records, ConfigError for a loss below zero and for scores that must not share a column, EnvironmentBroken if
    `results_dir` cannot be written.
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
    frame = to_frame(records)
    whole, pieces = sections(frame, threshold), part_sections(frame, threshold)
    named = [(_relative(path, results_dir), reason) for path, reason in problems]
    published = beside(read_published(paper), whole)
    written: list[Path] = []
    try:
        texts = _texts(frame, whole, pieces) | _grids(whole, pieces, published)
        texts["brief.html"] = brief.page(frame, whole, named, read_coverage(results_dir), config)
        for name, text in texts.items():
            written.append(_write(results_dir / name, text))
        (results_dir / "figures").mkdir(exist_ok=True)
        jobs = [
            (section, results_dir, draw)
            for parts, draws in ((whole, [*scores.DRAWN, *details.DRAWN]), (pieces, [details.languages]))
            for section in parts
            for draw in draws
        ]
        # Drawing is most of the time, but a process takes two seconds to start: only many figures are worth several.
        made = Parallel(n_jobs=min(cpu_count(), 1 + len(jobs) // 20))(delayed(_figure)(*job) for job in jobs)
        shown = [
            (
                section,
                [drawn for (own, *_), (drawn, _) in zip(jobs, made, strict=True) if own is section and drawn],
            )
            for section in (*whole, *pieces)
        ]
        written += [path for _, paths in made for path in paths]
        written.append(
            _write(results_dir / "INDEX.md", index(frame, tables.coverage(frame), named, shown, published))
        )
        _remove_older(results_dir, written)
    except OSError as error:
        raise EnvironmentBroken(f"results_dir ({results_dir}) cannot be written: {error}.") from error
    return written


def _remove_older(results_dir: Path, written: list[Path]) -> None:
    """Delete tables and figures that an earlier report made and this one has no data for, such as <what>--<model>--<suite>."""
    made = ("figures/*--*--*.*", "tables/*--*--*.*", "tables/parts.csv", "tables/published.*")
    for path in (path for pattern in made for path in results_dir.glob(pattern)):
        if path not in written:
            path.unlink()


def _texts(frame: pd.DataFrame, whole: list[Section], pieces: list[Section]) -> dict[str, str]:
    """Return file name -> content of the long tables."""
    coverage = tables.coverage(frame)
    texts = {
        "tables/coverage.md": f"# Coverage (seeds)\n\n{tables.coverage_markdown(coverage)}",
        "tables/coverage.csv": _csv(coverage),
        "tables/failures.csv": _csv(tables.failures(frame)),
        "tables/runs.csv": _csv(tables.runs(frame)),
    }
    for name, some in (("results", whole), ("parts", pieces)):
        if some:
            texts[f"tables/{name}.csv"] = _csv(
                pd.concat([tables.results(section) for section in some], ignore_index=True)
            )
    return texts


def _grids(whole: list[Section], pieces: list[Section], published: pd.DataFrame) -> dict[str, str]:
    """Return file name -> content of the tables for people, each as Markdown, LaTeX and CSV."""
    grids = [("results", section, tables.results_grid(section)) for section in whole]
    grids += [("parts", section, tables.results_grid(section)) for section in pieces]
    grids += [("budgets", section, grid) for section in whole if (grid := tables.budget_grid(section)).rows]
    texts: dict[str, str] = {}
    for name, section, grid in grids:
        texts |= _grid(f"tables/{slug(name, section.title, section.suite)}", grid)
    if len(published):
        texts |= _grid("tables/published", published_grid(published)) | {
            "tables/published.csv": _csv(published)
        }
    return texts


def _grid(stem: str, grid: Grid) -> dict[str, str]:
    how = "" if grid.title == TITLE else tables.HOW_TO_READ
    return {
        f"{stem}.md": f"# {escape(grid.title)}\n\n{how}\n{to_markdown(grid)}",
        f"{stem}.tex": to_latex(grid._replace(notes=f"{how} {grid.notes}".strip())),
        f"{stem}.csv": _csv(pd.DataFrame(grid.rows, columns=grid.header)),
    }


def _figure(section: Section, results_dir: Path, draw: figures.Draw) -> tuple[Drawn | None, list[Path]]:
    """Return the figure as INDEX.md shows it and the files written; None where the section has no data for it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing from font")
        chart = draw(section)
        if chart is None:
            return None, []
        stem = f"figures/{slug(chart.name, section.title, section.suite)}"
        paths = [results_dir / f"{stem}.{kind}" for kind in ("png", "svg", "pdf")]
        figures.save(chart.figure, *paths)
    missing = {str(one.message) for one in caught if "missing from font" in str(one.message)}
    for other in {str(one.message) for one in caught} - missing:
        log.warning("%s.png: %s", stem, other)
    if missing:
        log.warning(
            "%s.png: %d of its letters are in no installed font and are drawn as boxes: install one that has them, for Chinese, "
            "Japanese and Korean Debian's fonts-noto-cjk.",
            stem,
            len(missing),
        )
    return Drawn(chart.title, f"{stem}.png"), [*paths, _write(results_dir / f"{stem}.csv", _csv(chart.data))]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _csv(data: pd.DataFrame) -> str:
    return str(data.to_csv(index=False, lineterminator="\n"))


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
