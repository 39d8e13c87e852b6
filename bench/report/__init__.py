"""From records alone to tables, figures and INDEX.md. Needs no GPU, no weights and no torch."""

import logging
import warnings
from pathlib import Path

import jinja2
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from bench.errors import BenchError, ConfigError, EnvironmentBroken
from bench.report import brief, details, figures, style, tables
from bench.report.breakdown import breakdown_table
from bench.report.grid import Grid, to_latex, to_markdown
from bench.report.latency import side_by_side
from bench.report.published import PAPER, TITLE, beside, published_grid, read_published
from bench.report.runs import ids_sha256, to_frame
from bench.report.scores import ALL, score_table, sections
from bench.settings.schema import RunConfig
from bench.store import STATUSES, Record, read_coverage
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
    `config` says what the brief is asked, and the loss whose probability is computed; `paper` holds published numbers.
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
    runs = to_frame(records)
    scores, breakdown = score_table(runs, threshold), breakdown_table(runs, threshold)
    published = beside(read_published(paper), scores)
    named = [(_relative(path, results_dir), reason) for path, reason in problems]

    # The files.
    texts = _tables(runs, scores, breakdown, published)
    texts["brief.html"] = brief.page(runs, scores, named, read_coverage(results_dir), config)
    parts = [*sections(scores), *sections(breakdown)]
    try:
        written = [_write(results_dir / name, text) for name, text in texts.items()]
        (results_dir / "figures").mkdir(exist_ok=True)
        whole = [
            (place, draw)
            for place in range(len(sections(scores)))
            for draw in (*figures.DRAWN, *details.DRAWN)
        ]
        jobs = whole + [(place, details.languages) for place in range(len(sections(scores)), len(parts))]
        # Drawing is most of the time, but a process takes two seconds to start: only many figures are worth several.
        drawn = Parallel(n_jobs=min(cpu_count(), 1 + len(jobs) // 20))(
            delayed(_figure)(parts[place], results_dir, draw) for place, draw in jobs
        )
        written += [path for _, paths in drawn for path in paths]
        shown = [
            [figure for (where, _), (figure, _) in zip(jobs, drawn, strict=True) if where == place and figure]
            for place in range(len(parts))
        ]
        written.append(_write(results_dir / "INDEX.md", _index(runs, parts, shown, named, published)))
        _remove_older(results_dir, written)
    except OSError as error:
        raise EnvironmentBroken(f"results_dir ({results_dir}) cannot be written: {error}.") from error
    return written


def _remove_older(results_dir: Path, written: list[Path]) -> None:
    """Delete tables and figures that an earlier report made and this one has no data for, such as <what>--<model>--<suite>."""
    names = (
        "breakdown.*",
        "published.*",
        "coverage.*",
        "parts.*",
    )  # the last two: what reports wrote before they were renamed
    made = ("figures/*--*--*.*", "tables/*--*--*.*", *(f"tables/{name}" for name in names))
    for path in (path for pattern in made for path in results_dir.glob(pattern)):
        if path not in written:
            path.unlink()


def _tables(
    runs: pd.DataFrame, scores: pd.DataFrame, breakdown: pd.DataFrame, published: pd.DataFrame
) -> dict[str, str]:
    """Return file name -> content of the long tables, and of those for people as Markdown, LaTeX and CSV."""
    complete = tables.completeness(runs)
    texts = {
        "tables/completeness.md": f"# Completeness (seeds)\n\n{tables.as_markdown(complete)}",
        "tables/completeness.csv": tables.csv(complete),
        "tables/failures.csv": tables.csv(tables.failures(runs)),
        "tables/runs.csv": tables.csv(tables.runs(runs)),
    }
    grids: list[tuple[str, Grid]] = []
    for name, table in (("results", scores), ("breakdown", breakdown)):
        if len(table):
            texts[f"tables/{name}.csv"] = tables.csv(tables.results(table))
        grids += [(_stem(name, part), tables.results_grid(part)) for part in sections(table)]
    grids += [(_stem("budgets", part), tables.budget_grid(part)) for part in sections(scores)]
    grids.append(("published", published_grid(published)))
    for stem, grid in grids:
        if grid.rows:
            how = "" if grid.title == TITLE else tables.HOW_TO_READ
            texts |= {
                f"tables/{stem}.md": f"# {escape(grid.title)}\n\n{how}\n{to_markdown(grid)}",
                f"tables/{stem}.tex": to_latex(grid._replace(notes=f"{how} {grid.notes}".strip())),
                f"tables/{stem}.csv": tables.csv(pd.DataFrame(grid.rows, columns=grid.header)),
            }
    return texts | ({"tables/published.csv": tables.csv(published)} if len(published) else {})


def _stem(name: str, part: pd.DataFrame) -> str:
    return slug(name, part.title.iloc[0], part.suite.iloc[0])


def _figure(
    part: pd.DataFrame, results_dir: Path, draw: style.Draw
) -> tuple[tuple[str, str] | None, list[Path]]:
    """Return the figure's title and image, and the files written; None and no file where the section has no data for it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph .* missing from font")
        chart = draw(part)
        if chart is None:
            return None, []
        stem = f"figures/{_stem(chart.name, part)}"
        paths = [results_dir / f"{stem}.{kind}" for kind in ("png", "svg", "pdf")]
        style.save(chart.figure, *paths)
    missing = {text for warning in caught if "missing from font" in (text := str(warning.message))}
    for other in {str(warning.message) for warning in caught} - missing:
        log.warning("%s.png: %s", stem, other)
    if missing:
        log.warning(
            "%s.png: %d of its letters are in no installed font and are drawn as boxes: install one that has them, for Chinese, "
            "Japanese and Korean Debian's fonts-noto-cjk.",
            stem,
            len(missing),
        )
    return (chart.title, f"{stem}.png"), [*paths, _write(results_dir / f"{stem}.csv", tables.csv(chart.data))]


def _index(
    runs: pd.DataFrame,
    parts: list[pd.DataFrame],
    shown: list[list[tuple[str, str]]],
    problems: list[tuple[str, str]],
    published: pd.DataFrame,
) -> str:
    """Return INDEX.md. It holds no time and no path of this machine, so that equal records give equal bytes."""
    complete, failed = tables.completeness(runs), tables.failures(runs)
    late = (complete.missing != "") | (complete[list(STATUSES[1:])] != "").any(axis=1)
    gaps = complete[tables.begun(complete) & late]
    context = {
        "provenance": _provenance(runs),
        "counts": tables.completeness_counts(complete),
        "gaps": tables.as_markdown(gaps) if len(gaps) else "",
        "failures": tables.as_markdown(failed) if len(failed) else "",
        "problems": problems,
        "how_to_read": tables.HOW_TO_READ,
        "sections": [_section(part, runs, drawn) for part, drawn in zip(parts, shown, strict=True)],
        "published": to_markdown(published_grid(published)) if len(published) else "",
        "published_title": TITLE,
        "cautions": tables.cautions(runs),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # no autoescape: the page is Markdown
    environment.filters["md"] = escape
    text = environment.get_template("index.md.j2").render(context)
    return text if text.endswith("\n") else f"{text}\n"


def _section(part: pd.DataFrame, runs: pd.DataFrame, drawn: list[tuple[str, str]]) -> dict[str, object]:
    """Return what INDEX.md shows of a section."""
    first, budgets = part.iloc[0], tables.budget_grid(part)
    scores = {row["config_id"]: tables.score_text(row) for row in part[part.main].to_dict("records")}
    return {
        "title": f"{first.title} on {first.suite}",
        "figures": drawn,
        "breakdown": ALL in set(part.column),
        "table": to_markdown(tables.results_grid(part)),
        "costs": side_by_side(part, runs, scores),
        "budgets_title": budgets.title,
        "budgets": to_markdown(budgets) if budgets.rows and not first.no_mean else "",
    }


def _provenance(runs: pd.DataFrame) -> str:
    """Return one line: number of records, digest over their ids, commits and devices."""
    known = runs.dropna(subset=["provenance.commit"])
    commits = sorted(set(zip(known["provenance.commit"], known.dirty, strict=True)))
    shown = [f"{commit} (with uncommitted changes)" if dirty else str(commit) for commit, dirty in commits]
    devices = sorted(runs["provenance.device"].dropna().unique())
    return (
        f"{len(runs):,} records, SHA-256 of their ids {ids_sha256(runs)}; commits: {escape(', '.join(shown) or 'unknown')}; "
        f"devices: {escape(', '.join(devices) or 'unknown')}."
    )


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name
