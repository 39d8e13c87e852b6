"""From records alone to tables, figures and INDEX.md. Needs no GPU, no weights and no torch."""

from pathlib import Path

import pandas as pd

from bench.config import RunConfig
from bench.errors import BenchError, EnvironmentBroken
from bench.report import brief, figures, tables
from bench.report.domain import read_coverage
from bench.report.frame import to_frame
from bench.report.index import Drawn, index
from bench.report.markdown import escape, slug
from bench.report.summary import Section, sections
from bench.store import Record


def write_report(
    records: list[Record], problems: list[tuple[Path, str]], results_dir: Path, config: RunConfig | None = None
) -> list[Path]:
    """Return the files written: `tables/`, `figures/`, `INDEX.md` and `brief.html` in `results_dir`.

    The same records give the same bytes. `config` says what the brief is asked.
    `problems` are unreadable records (path, reason) and are named in the report.
    Raises BenchError without records, ConfigError for scores that must not share a column, EnvironmentBroken if
    `results_dir` cannot be written.
    """
    if not records:
        unread = f" ({len(problems)} could not be read, the first: {problems[0][1]})" if problems else ""
        raise BenchError(f"No records in {results_dir / 'runs'}{unread}: run `make sweep` first, or set results_dir.")
    frame = to_frame(records)
    parts = sections(frame)
    coverage = tables.coverage(frame)
    named = [(_relative(path, results_dir), reason) for path, reason in problems]
    texts = {
        "tables/coverage.md": f"# Coverage (seeds)\n\n{tables.coverage_markdown(coverage)}",
        "tables/coverage.csv": _csv(coverage),
        "tables/failures.csv": _csv(tables.failures(frame)),
        "tables/runs.csv": _csv(tables.runs(frame)),
        "tables/results.csv": _csv(pd.concat([tables.results(section) for section in parts], ignore_index=True)),
    }
    texts["brief.html"] = brief.page(frame, parts, named, read_coverage(results_dir), config or RunConfig())
    pieces = tables.parts(frame)
    if len(pieces):
        texts["tables/parts.csv"] = _csv(pieces)
    for section in parts:
        name = f"tables/{slug('results', section.title, section.suite)}.md"
        heading = f"# {escape(section.title)} on {escape(section.suite)}"
        texts[name] = f"{heading}\n\n{tables.HOW_TO_READ}\n{tables.results_markdown(section)}"
    written = []
    try:
        shown = []
        for section in parts:
            drawn, paths = _figures(section, results_dir)
            shown.append((section, drawn))
            written += paths
        texts["INDEX.md"] = index(frame, coverage, named, shown)
        for name, text in texts.items():
            written.append(results_dir / name)
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise EnvironmentBroken(f"results_dir ({results_dir}) cannot be written: {error}.") from error
    return written


def _figures(section: Section, results_dir: Path) -> tuple[list[Drawn], list[Path]]:
    """Return the figures as INDEX.md shows them and the files written; none where nothing can be plotted."""
    drawn: list[Drawn] = []
    written: list[Path] = []
    for measure in figures.MEASURES:
        data = figures.points(section, measure)
        if not data:
            continue
        figure = figures.draw(section, measure, data)
        stem = f"figures/{slug(f'score-{measure.key}', section.title, section.suite)}"
        paths = {kind: results_dir / f"{stem}.{kind}" for kind in ("png", "svg", "csv")}
        paths["png"].parent.mkdir(parents=True, exist_ok=True)
        figures.save(figure, paths["png"], paths["svg"])
        paths["csv"].write_text(_csv(figures.as_frame(data, measure)), encoding="utf-8", newline="\n")
        drawn.append(Drawn(f"{section.title} on {section.suite}: score against {measure.title}", f"{stem}.png"))
        written += paths.values()
    return drawn, written


def _csv(data: pd.DataFrame) -> str:
    return str(data.to_csv(index=False, lineterminator="\n"))


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
