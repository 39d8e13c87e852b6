"""Published numbers beside ours, from the CSV files of results/paper/."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import ConfigError
from bench.report.frame import rows
from bench.report.grid import Grid
from bench.report.section import Column, Row, Section

PAPER = Path(__file__).resolve().parents[2] / "results" / "paper"
COLUMNS = ["source", "table", "page", "claim", "quantity", "number", "model", "task", "configuration"]
QUANTITIES = {
    "score": "score",
    "lost_points": "points below dense",
    "saved_parameters": "% fewer embedding parameters",
}
TITLE = "Published numbers beside ours"
NOTE = (
    "Where the published line names no model, task or configuration, every subspace embedding stands beside it, with the mean over "
    "tasks where there is one. Models, data and recipe are ours, so a difference is no failed reproduction."
)


def read_published(folder: Path) -> pd.DataFrame:
    """Return the published numbers of all CSV files; raises ConfigError, with file and line, for one that is not as COLUMNS say."""
    tables = [pd.DataFrame(columns=COLUMNS, dtype=str)]
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(table.columns) != COLUMNS:
            raise ConfigError(
                f"{path} has the columns {', '.join(table.columns)}; needed are {', '.join(COLUMNS)}."
            )
        for line, row in enumerate(rows(table), 2):
            if row.quantity not in QUANTITIES:
                raise ConfigError(
                    f"{path}, line {line}: unknown quantity '{row.quantity}'. Available: {', '.join(QUANTITIES)}."
                )
            if not re.fullmatch(r"-?\d+(\.\d+)?", row.number):
                raise ConfigError(f"{path}, line {line}: number ('{row.number}') is not a number.")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def beside(published: pd.DataFrame, sections: list[Section]) -> pd.DataFrame:
    """Return one line for each of our numbers that a published one speaks of, with the difference ours - published."""
    lines = []
    for claim in rows(published):
        for section in (section for section in sections if claim.model in ("", section.model)):
            columns = (
                [column for column in section.columns if column.task == claim.task]
                if claim.task
                else [section.main]
            )
            for row in section.embeddings:
                if row.label == claim.configuration or (not claim.configuration and row.method == "subspace"):
                    lines += [line for column in columns if (line := _line(claim, section, row, column))]
    return pd.DataFrame(lines, columns=[*COLUMNS, "ours", "interval", "difference"]).drop_duplicates(
        ignore_index=True
    )


def _line(claim: Any, section: Section, row: Row, column: Column) -> dict[str, Any] | None:
    ours, interval = _ours(claim.quantity, section, row, column)
    if ours is None:
        return None
    number, task = float(claim.number), "" if claim.quantity == "saved_parameters" else column.name
    mine = {"model": section.title, "task": task, "configuration": row.label, "number": number}
    published: dict[str, Any] = claim._asdict()
    return published | mine | {"ours": ours, "interval": interval, "difference": ours - number}


def _ours(quantity: str, section: Section, row: Row, column: Column) -> tuple[float | None, str]:
    cell = section.cells[row.config_id, column.name]
    if quantity == "saved_parameters":
        return (None if row.param_saving is None else 100 * row.param_saving), ""
    found, sign = (cell.score, 1) if quantity == "score" else (cell.change, -1)
    if found.mean is None:
        return None, ""
    low, high = sorted((sign * (found.low or 0), sign * (found.high or 0)))
    return (
        sign * found.mean,
        f"{low:.1f} to {high:.1f} ({found.interval})" if found.interval else f"{found.n} seed",
    )


def published_grid(lines: pd.DataFrame) -> Grid:
    """Return the lines of `beside` as a table."""
    head = [
        "published",
        "where",
        "model",
        "task",
        "configuration",
        "quantity",
        "number",
        "ours",
        "95 % interval",
        "difference",
    ]
    body = [
        [
            line.claim,
            f"{line.source}, {line.table}, page {line.page}",
            line.model,
            line.task,
            line.configuration,
            QUANTITIES[line.quantity],
            f"{line.number:g}",
            f"{line.ours:.2f}",
            line.interval,
            f"{line.difference:+.2f}".replace("-", "−"),
        ]
        for line in rows(lines)
    ]
    return Grid(TITLE, head, body, 4, NOTE)
