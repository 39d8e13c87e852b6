"""The message of a section: how much smaller the embedding becomes for which loss, said as strongly as its interval allows."""

from typing import Any, NamedTuple

import pandas as pd

from bench.report.scores import FLOORS, SIZE
from bench.text import minus, percent_text, size_text

WHOLE = "size.total_bytes"
SAVED = {SIZE: "the embedding", "size.memory_bytes": "the embedding's memory", WHOLE: "the model"}
CERTAIN = 0.05  # the corrected p-value below which "no worse than" is said


class Message(NamedTuple):
    """The configuration that a section's figures speak of, and the sentence about it."""

    config_id: str
    name: str  # as `point_name`
    text: str
    smaller_id: str | None = None  # of the smaller configuration that the sentence names, too


def message(part: pd.DataFrame, size: str = SIZE) -> Message | None:
    """Return the smallest embedding that is shown to be no worse than dense by more than the margin, and the sentence.

    `size` is the column by which it is the smallest, one of SAVED.

    Shown is what passes the test after Holm's correction; a smaller one whose mean loss is within the margin is named after it, with
    its interval. Where nothing is shown, it is the smallest whose mean loss is within the margin, and then the one that loses least.
    None where nothing can be compared with dense in points.
    """
    main = part[part.main & ((part.body == "fp32") | (size == WHOLE))]
    compared = main[(main.kind != "dense") & ~main.kind.isin(FLOORS) & main.difference_to_dense.notna()]
    compared = compared[(compared.scale == 100) & compared.higher_is_better.astype(bool)]
    compared = compared.sort_values([size, "configuration"])
    if compared.empty:
        return None
    margin = compared.margin.iloc[0]
    shown = compared[(compared.paired_seeds > 1) & (compared.p_holm < CERTAIN)]
    within = compared[-compared.difference_to_dense <= margin]
    nearest = compared.sort_values("difference_to_dense", kind="stable").tail(1)
    row = next(rows.iloc[0] for rows in (shown, within, nearest) if len(rows)).to_dict()
    dense = main[main.kind == "dense"][size].max()
    share, cost = _saved(row, size, dense)
    text, smaller = f"{share} of {SAVED[size]} saved {cost}", []
    if len(shown):
        tested = part.p_holm[part.main].notna().sum()  # one column: corrected within it
        of = f", corrected for {tested}" if tested > 1 else ""
        text += f", less than {points(margin)} (p < 0.05{of})"
        smaller = within[within[size] < row[size]].head(1).to_dict("records")
        text += "".join(f"; {' '.join(_saved(less, size, dense))}{_interval(less)}" for less in smaller)
    else:
        text += _interval(row)
    if not len(within):
        text = f"No embedding stays within {points(margin)} of dense: {text}"
    smaller_id = next((str(less["config_id"]) for less in smaller), None)
    return Message(str(row["config_id"]), point_name(row, size), text, smaller_id)


def _saved(row: dict[Any, Any], size: str, dense: float) -> tuple[str, str]:
    """Return the saved share of the dense model's size, and the points that it costs."""
    loss = -row["difference_to_dense"]
    cost = f"for {points(loss, 1)}" if loss > 0 else "with no loss measured"
    return percent_text(1 - row[size] / dense), cost


def point_name(row: dict[Any, Any], size: str = SIZE) -> str:
    """Return a configuration's name in a figure: the method in plain words, and its size."""
    known = size_text(row[size]) if pd.notna(row[size]) else ""
    return f"{row['plain_name']}, {known}".removesuffix(", ")


def points(number: float, digits: int | None = None) -> str:
    """Return the number of points in words."""
    text = f"{number:g}" if digits is None else minus(number, digits)
    return f"{text} point{'s' * (text != '1')}"


def _interval(row: dict[Any, Any]) -> str:
    """Return the 95 % interval of the loss in brackets, and whether it leaves out other seeds."""
    low, high = -row["difference_ci95_high"], -row["difference_ci95_low"]
    seeds = " (one seed)" if row["paired_seeds"] == 1 else ""
    return seeds if pd.isna(low) else f" [{minus(low)}, {minus(high)}]{seeds}"
