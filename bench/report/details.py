"""Figures of one question each: languages, rare tokens, assignments, codebook grids, recovery."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from bench.report.figures import STYLE, Chart, kind_styles, label_ends, legend, page, settle
from bench.report.section import ALL, GAP, Row, Section
from bench.statistics import summarise

MOST_LINES = 8  # of a figure; the CSV file beside it has all
LANGUAGES = 2  # letters of a language's name in XNLI


def _spread(rows: list[Row]) -> list[Row]:
    """Return at most MOST_LINES rows, from the largest to the smallest embedding."""
    chosen = np.linspace(0, len(rows) - 1, min(MOST_LINES, len(rows))).round().astype(int)
    return [rows[index] for index in chosen]


def languages(section: Section) -> Chart | None:
    """Return a dot plot of a task's languages, a line for each, English first and its score as a vertical line."""
    names = [column.name for column in section.columns if column.name not in (ALL, GAP)]
    if not names or any(len(name) != LANGUAGES for name in names):
        return None
    lines = [
        {
            "language": name,
            "configuration": row.label,
            "kind": row.kind,
            "mean": score.mean,
            "ci95_low": score.low,
            "ci95_high": score.high,
            "interval": score.interval,
            "seeds": score.n,
            "config_id": row.config_id,
        }
        for row in section.embeddings
        for name in names
        if (score := section.cells[row.config_id, name].score).mean is not None
    ]
    if not lines:
        return None
    data = pd.DataFrame(lines)
    first = data[data.config_id == data.config_id.iloc[0]].set_index("language")["mean"]
    order = ["en"] * ("en" in first) + [
        str(name) for name in first.drop("en", errors="ignore").sort_values(ascending=False).index
    ]
    scored = set(data.config_id)
    largest = {
        row.kind: row for row in reversed(section.embeddings) if row.config_id in scored
    }  # one a kind: dots of one kind look alike
    chosen = sorted(largest.values(), key=section.embeddings.index)
    styles = kind_styles({row.kind for row in chosen})
    title = f"{section.title} on {section.suite}: every language against English"
    with rc_context(STYLE):
        figure = page(title, (10, 2.6 + 0.36 * len(order)), section.provenance)
        axes = figure.subplots()
        handles = []
        for index, row in enumerate(chosen):
            own = data[(data.config_id == row.config_id) & data.language.isin(order)]
            colour, marker = styles[row.kind]
            offset = 0.5 * (index / max(len(chosen) - 1, 1) - 0.5)
            places = [order.index(name) + offset for name in own.language]
            spread = np.vstack(
                [own["mean"] - own.ci95_low.astype(float), own.ci95_high.astype(float) - own["mean"]]
            )
            handles.append(
                axes.errorbar(
                    own["mean"],
                    places,
                    xerr=np.nan_to_num(spread),
                    color=colour,
                    marker=marker,
                    markersize=8,
                    linestyle="none",
                    elinewidth=1,
                    label=row.label,
                    zorder=3,
                )
            )
            for english in own[own.language == "en"]["mean"]:
                axes.axvline(english, color=colour, linewidth=1, linestyle=":", zorder=1)
        axes.set_yticks(range(len(order)), order)
        axes.invert_yaxis()
        unit = next(column.unit for column in section.columns if column.name == order[0])
        axes.set_xlabel(f"{unit}; dotted: the same embedding on English")
        legend(figure, handles, 2)
        settle(figure)
    return Chart("languages", title, data.drop(columns="config_id"), figure)


def deciles(section: Section) -> Chart | None:
    """Return the error of the embedding before training in each tenth of the tokens, from frequent to rare."""
    rows = [row for row in section.embeddings if row.decile_errors and row.kind != "dense"]
    lines = [
        {"configuration": row.label, "kind": row.kind, "decile": place, "relative_error": error}
        for row in rows
        for place, error in enumerate(row.decile_errors or [], 1)
    ]
    if not lines:
        return None
    title = f"{section.title} on {section.suite}: what rare tokens lose"
    curves = [
        (row, list(range(1, len(row.decile_errors or []) + 1)), row.decile_errors or [])
        for row in _spread(rows)
    ]
    labels = ("tenth of the tokens, 1 = most frequent in the training rows", "relative error before training")
    return Chart("deciles", title, pd.DataFrame(lines), _curves(title, curves, labels, section.provenance))


def recovery(section: Section) -> Chart | None:
    """Return the loss over the steps of recovery, a line for each recovered embedding."""
    rows = [row for row in section.embeddings if row.recovery_curve]
    lines = [
        {"configuration": row.label, "kind": row.kind, "step": step, "loss": loss}
        for row in rows
        for step, loss in row.recovery_curve or []
    ]
    if not lines:
        return None
    title = f"{section.title} on {section.suite}: recovery before the fine-tuning"
    curves = [
        (row, [step for step, _ in row.recovery_curve or []], [loss for _, loss in row.recovery_curve or []])
        for row in _spread(rows)
    ]
    return Chart(
        "recovery",
        title,
        pd.DataFrame(lines),
        _curves(title, curves, ("step", "training loss"), section.provenance),
    )


def _curves(
    title: str, curves: list[tuple[Row, list[Any], list[float]]], labels: tuple[str, str], foot: str
) -> Figure:
    """Return a figure of lines that are named at their ends."""
    styles = kind_styles({row.kind for row, *_ in curves})
    with rc_context(STYLE):
        figure = page(title, (10, 6), foot)
        axes = figure.subplots()
        for row, x, y in curves:
            colour, marker = styles[row.kind]
            axes.plot(
                x, y, color=colour, marker=marker, markersize=7, markevery=max(1, len(x) // 10), linewidth=1.6
            )
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        last = max(x[-1] for _, x, _ in curves)
        axes.set_xlim(right=last + 0.45 * (last - min(x[0] for _, x, _ in curves)))  # room for the names
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= last])
        settle(figure)
        label_ends(axes, [(x[-1], y[-1], row.label) for row, x, y in curves])
    return figure


def assignments(section: Section) -> Chart | None:
    """Return each assignment's paired difference to the simplest one of the same table, recovery and training."""
    families: dict[str, list[Row]] = {}
    for row in section.embeddings:
        if row.assignment_family:
            families.setdefault(row.assignment_family, []).append(row)
    lines: list[dict[str, Any]] = []
    simplest = {"sequential": 0, "hash": 1, "random": 2}
    for family in families.values():
        ordered = sorted(family, key=lambda row: (simplest.get(row.kind, 3), row.label))
        for row in ordered[1:]:
            one, other = section.paired(row.config_id, ordered[0].config_id, section.main)
            found = summarise(one - other)
            if found.mean is not None:
                lines.append(
                    {
                        "configuration": row.label,
                        "against": ordered[0].label,
                        "kind": row.kind,
                        "difference": found.mean,
                        "ci95_low": found.low,
                        "ci95_high": found.high,
                        "interval": found.interval,
                        "paired_seeds": found.n,
                    }
                )
    if not lines:
        return None
    data = pd.DataFrame(lines)
    styles = kind_styles(set(data.kind))
    title = f"{section.title} on {section.suite}: assignments at equal tables"
    with rc_context(STYLE):
        figure = page(title, (10, 2.4 + 0.5 * len(data)), section.provenance)
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=1.2)
        for place, line in enumerate(lines):
            colour, marker = styles[line["kind"]]
            spread = (
                None
                if line["ci95_low"] is None
                else [[line["difference"] - line["ci95_low"]], [line["ci95_high"] - line["difference"]]]
            )
            axes.errorbar(
                line["difference"],
                place,
                xerr=spread,
                color=colour,
                marker=marker,
                markersize=9,
                capsize=4,
                linestyle="none",
            )
        axes.set_yticks(
            range(len(lines)),
            [f"{line['configuration']}\nagainst {line['against']}" for line in lines],
            fontsize=11,
        )
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel(
            f"paired difference, {section.main.unit or 'score'}{'; bars: 95 % intervals' if data.ci95_low.notna().any() else ''}"
        )
        settle(figure)
    return Chart("assignments", title, data, figure)


def grids(section: Section) -> Chart | None:
    """Return heat maps of the score over subspaces x rows, one for each family of embeddings in which both vary."""
    families: dict[str, list[Row]] = {}
    for row in section.embeddings:
        if (
            row.subspaces
            and row.table_rows
            and section.cells[row.config_id, section.main.name].score.mean is not None
        ):
            families.setdefault(row.table_family, []).append(row)
    shown = [
        rows
        for rows in families.values()
        if len(rows) > 3
        and len({row.subspaces for row in rows}) > 1
        and len({row.table_rows for row in rows}) > 1
    ]
    if not shown:
        return None
    lines = [
        {
            "panel": place,
            "kind": row.kind,
            "configuration": row.label,
            "subspaces": row.subspaces,
            "rows": row.table_rows,
            "mean": section.cells[row.config_id, section.main.name].score.mean,
        }
        for place, rows in enumerate(shown, 1)
        for row in rows
    ]
    data = pd.DataFrame(lines)
    low, high = data["mean"].min(), data["mean"].max()
    title = f"{section.title} on {section.suite}: score over subspaces and rows"
    with rc_context(STYLE | {"axes.grid": False}):
        figure = page(title, (max(10, 5 * len(shown)), 6), section.provenance)
        colours = matplotlib.colormaps["cividis"]  # its lightness grows evenly: it reads in grey too
        for axes, (_, part) in zip(
            figure.subplots(1, len(shown), squeeze=False).flat, data.groupby("panel"), strict=True
        ):
            table = part.pivot_table(index="rows", columns="subspaces", values="mean")
            axes.pcolormesh(
                table, cmap=colours, vmin=low, vmax=high if high > low else low + 1
            )  # vectors, unlike an image
            for (y, x), value in np.ndenumerate(table.to_numpy()):
                if not np.isnan(value):
                    dark = value < (low + high) / 2
                    axes.text(
                        x + 0.5,
                        y + 0.5,
                        f"{value:.1f}",
                        ha="center",
                        va="center",
                        color="white" if dark else "black",
                    )
            axes.set_xticks(np.arange(table.shape[1]) + 0.5, [str(name) for name in table.columns])
            axes.set_yticks(np.arange(table.shape[0]) + 0.5, [str(name) for name in table.index])
            axes.set_xlabel("subspaces (f)")
            axes.set_ylabel("rows of each table (Q)")
            extra = " ".join(
                word
                for word in str(part.configuration.iloc[0]).split()
                if not word.startswith(("f=", "Q=", "s="))
            )
            axes.set_title(f"{extra}\n{section.main.unit or 'score'}")
        settle(figure)
    return Chart("grid", title, data, figure)


DRAWN = [deciles, assignments, grids, recovery]
