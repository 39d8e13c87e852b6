"""Published numbers beside ours, from the CSV files of results/paper/."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import ConfigError
from bench.report.grid import Grid

PAPER = Path(__file__).resolve().parents[2] / "results" / "paper"
COLUMNS = ["source", "table", "page", "claim", "quantity", "number", "model", "task", "configuration"]
CODES = (
    "sequential",
    "random",
    "contextual",
)  # of subspace embeddings as the paper's abstract describes them
QUANTITIES = {
    "score": "score",
    "lost_points": "points below dense",
    "saved_parameters": "% fewer embedding parameters",
}
TITLE = "Published numbers beside ours"
NOTE = (
    "Where the published line names no model, task or configuration, every subspace embedding stands beside it whose codes tell tokens "
    "apart (sequential, random, contextual), with the mean over tasks where there is one. Product quantisation is another method and "
    "does not. Model, data and recipe are ours, and the abstract names no number of subspaces: this reproduces nothing and refutes nothing."
)


def read_published(folder: Path) -> pd.DataFrame:
    """Return the published numbers of all CSV files in a folder.

    Raises ConfigError with file and line for other columns than COLUMNS, an unknown quantity and a number that is none.
    """
    tables = [pd.DataFrame(columns=COLUMNS, dtype=str)]
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(table.columns) != COLUMNS:
            raise ConfigError(
                f"{path} has the columns {', '.join(table.columns)}; needed are {', '.join(COLUMNS)}."
            )
        for line, (quantity, number) in enumerate(zip(table.quantity, table.number, strict=True), 2):
            if quantity not in QUANTITIES:
                raise ConfigError(
                    f"{path}, line {line}: unknown quantity '{quantity}'. Available: {', '.join(QUANTITIES)}."
                )
            if not re.fullmatch(r"-?\d+(\.\d+)?", number):
                raise ConfigError(
                    f"{path}, line {line}: number ('{number}') must be a decimal number such as 99.8."
                )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def beside(published: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each of our numbers that a published number is about, with the difference ours - published."""
    lines = [line for claim in published.to_dict("records") for line in _lines(claim, table)]
    columns = [*COLUMNS, "ours", "interval", "difference"]
    return pd.DataFrame(lines, columns=columns).drop_duplicates(ignore_index=True)


def _lines(claim: dict[Any, Any], table: pd.DataFrame) -> Iterator[dict[Any, Any]]:
    """Yield a published line with each of our configurations that it is about."""
    named, model, task = claim["configuration"], claim["model"], claim["task"]
    chosen = table[(table.body == "fp32") & (table.task == task if task else table.main)]
    chosen = chosen[chosen.model == model] if model else chosen
    about = chosen.configuration == named if named else chosen.kind.isin(CODES)
    for row in chosen[about].to_dict("records"):
        saved, score = claim["quantity"] == "saved_parameters", claim["quantity"] == "score"
        key, name, sign = ("mean", "ci95", 1) if score else ("difference_to_dense", "difference_ci95", -1)
        ours = 100 * row["size.param_saving"] if saved else sign * row[key]
        if pd.isna(ours):
            continue
        low, high = sorted(sign * row[f"{name}_{end}"] for end in ("low", "high"))
        seeds = row["n" if score else "paired_seeds"]
        interval = f"{low:.1f} to {high:.1f} ({row[f'{name}_is']})" if row[f"{name}_is"] else f"{seeds} seed"
        yield claim | {
            "model": row["title"],
            "task": "" if saved else row["column"],
            "configuration": row["configuration"],
            "number": float(claim["number"]),
            "ours": ours,
            "interval": "" if saved else interval,
            "difference": ours - float(claim["number"]),
        }


def published_grid(lines: pd.DataFrame) -> Grid:
    """Return the lines of `beside` as a table."""
    names = ["model", "task", "configuration"]
    head = ["published", "where", *names, "quantity", "number", "ours", "95 % interval", "difference"]
    body = []
    for line in lines.to_dict("records"):
        claim = [line["claim"], f"{line['source']}, {line['table']}, page {line['page']}"]
        ours = [f"{line['number']:g}", f"{line['ours']:.2f}", line["interval"]]
        difference = f"{line['difference']:+.2f}".replace("-", "−")
        body.append(claim + [line[key] for key in names] + [QUANTITIES[line["quantity"]], *ours, difference])
    return Grid(TITLE, head, body, 4, NOTE)
