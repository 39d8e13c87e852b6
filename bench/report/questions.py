"""Figures of a single question each: languages, rare tokens, assignments, codebook grids, recovery."""

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes

from bench.report.breakdown import of_languages
from bench.report.cells import paired
from bench.report.languages import LANGUAGE_COLUMNS, choice, costs, language_table, named, shown
from bench.report.message import message, point_name
from bench.report.names import language_name
from bench.report.runs import rows
from bench.report.style import (
    STYLE,
    Chart,
    about,
    figure,
    kind_styles,
    label_ends,
    legend,
    mark,
    page,
    settle,
)
from bench.statistics import summarise
from bench.text import minus, signed

MOST_LINES = 6  # of a figure; the CSV file beside it has all
MAPS_ABREAST = 4  # heat maps in a line
SIMPLEST = ["sequential", "hash", "random"]  # assignments that know nothing of the tokens


@figure("languages", of_breakdown=True)
def languages(part: pd.DataFrame) -> Chart | None:
    """Return a dot plot of a task's languages, a line for each, English first and its score as a vertical line."""
    lines = of_languages(part)
    lines = lines[(lines.body == "fp32") & lines["mean"].notna()]
    if lines.empty:
        return None

    # From the language in which the first embedding is best to that in which it is worst.
    first = lines[lines.config_id == lines.config_id.iloc[0]].set_index("column")["mean"]
    others = first.drop("en", errors="ignore").sort_values(ascending=False)
    order = ["en"] * ("en" in first) + list(map(str, others.index))
    largest = lines.drop_duplicates("kind").config_id  # of each kind, whose dots look alike
    styles = kind_styles(set(lines.kind))
    behind = (first["en"] - others.mean()) if "en" in first and len(others) else None
    title = (
        "Every language" if behind is None else f"Other languages are {minus(behind)} points behind English"
    )
    subtitle = about(part, f"{lines.configuration.iloc[0]}, and the largest of each other kind")
    with rc_context(STYLE):
        figure = page(title, subtitle, (10, 2.6 + 0.36 * len(order)), part.provenance.iloc[0])
        axes = figure.subplots()
        handles = []
        for index, config_id in enumerate(largest):
            dots = lines[(lines.config_id == config_id) & lines.column.isin(order)]
            style, label = styles[dots.kind.iloc[0]], point_name(dots.iloc[0].to_dict())
            offset = 0.5 * (index / max(len(largest) - 1, 1) - 0.5)
            spread = np.nan_to_num([dots["mean"] - dots.ci95_low, dots.ci95_high - dots["mean"]])
            places = [order.index(name) + offset for name in dots.column]
            bars: dict[str, Any] = {"xerr": spread, "elinewidth": 1, "zorder": 3}
            look = mark(style, 8, hollow=bool(dots.plain.iloc[0]))
            handles.append(axes.errorbar(dots["mean"], places, label=label, **bars, **look))
            for english in dots[dots.column == "en"]["mean"]:
                axes.axvline(english, color=style[0], linewidth=1, linestyle=":", zorder=1)
        axes.set_yticks(range(len(order)), list(map(language_name, order)))
        axes.invert_yaxis()
        axes.set_xlabel(f"{lines.metric.iloc[0]}; dotted: the same embedding on English")
        legend(figure, handles, 2)
        settle(figure)
    columns = ["column", "configuration", "kind", "mean", "ci95_low", "ci95_high", "ci95_is", "n"]
    return Chart(f"{title} · {subtitle}", lines[columns], figure)


@figure("language-losses", of_breakdown=True)
def losses(part: pd.DataFrame) -> Chart | None:
    """Return each language's paired difference to dense for configurations of the front, the language that loses most on top."""
    lines = language_table(part)
    lines = lines[(lines.body == "fp32") & lines.difference_to_dense.notna()]
    chosen = shown(part)
    dots = lines[lines.config_id.isin(chosen)]
    if dots.empty:
        return None

    # A marker says what kind a configuration is, a shade how large: dark is the largest.
    order = list(dots.groupby("language").difference_to_dense.mean().sort_values().index)
    styles = kind_styles(set(dots.kind))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(chosen)))
    taken = choice(part)
    small = costs(part[part.config_id == taken])[0]
    worst, loss = next(iter(small.losses.items()))
    name = point_name(lines[lines.config_id == taken].iloc[0].to_dict())
    means, least = (signed(-lost) for lost in (small.mean_loss, loss))
    title = f"{name}: {means} points on the mean of {len(small.losses)} languages, {least} on {language_name(worst)}"
    subtitle = about(part, "difference to dense in each language")
    with rc_context(STYLE):
        figure = page(title, subtitle, (10, 3 + 0.4 * len(order)), part.provenance.iloc[0])
        axes = figure.subplots()
        handles = [axes.axvline(0, color="black", linewidth=1.4, label="dense", zorder=2)]
        for place, (config_id, shade) in enumerate(zip(chosen, shades, strict=True)):
            own = dots[dots.config_id == config_id]
            offset = 0.5 * (place / max(len(chosen) - 1, 1) - 0.5)
            heights = [order.index(name) + offset for name in own.language]
            ends = own.difference_ci95_low, own.difference_ci95_high
            axes.hlines(heights, *ends, color=shade, alpha=0.4, linewidth=2, zorder=3)
            look = mark((shade, styles[own.kind.iloc[0]][1]), 8, hollow=bool(own.plain.iloc[0]))
            label = point_name(own.iloc[0].to_dict())
            handles += axes.plot(own.difference_to_dense, heights, label=label, zorder=4, **look)
        axes.set_yticks(range(len(order)), [named(dots, name) for name in order])
        axes.invert_yaxis()
        bars = "; bars: 95 % intervals" if dots.difference_ci95_low.notna().any() else ""
        axes.set_xlabel(f"paired difference to dense, {dots.metric.iloc[0]}{bars}")
        legend(figure, handles, 2)
        settle(figure)
    return Chart(f"{title} · {subtitle}", lines[LANGUAGE_COLUMNS], figure)


@figure("deciles")
def deciles(part: pd.DataFrame) -> Chart | None:
    """Return the error of the embedding before training in each tenth of the tokens, from frequent to rare."""
    lines = _embeddings(part)
    lines = lines[lines["fit.decile_errors"].notna() & (lines.kind != "dense")]
    curves = [list(enumerate(errors, 1)) for errors in lines["fit.decile_errors"]]
    axes = {
        "decile": "tenth of the tokens, 1 = most frequent in the training rows",
        "relative_error": "relative error before training",
    }
    said, title = message(part), "How well each tenth of the tokens is fitted, before any training"
    mine = lines[lines.config_id == said.config_id] if said else lines.iloc[:0]
    if said and len(mine):
        errors = mine["fit.decile_errors"].iloc[0]
        times = f"{errors[-1] / errors[0]:.2f} times the most frequent's"
        title = f"{said.name}: before training, the rarest tenth of tokens has {times} error"
    return _curves(title, about(part, "error of the embedding before any training"), lines, curves, axes)


@figure("assignments")
def assignments(part: pd.DataFrame) -> Chart | None:
    """Return each assignment's paired difference to the simplest assignment of the same table, recovery and training."""
    embeddings = _embeddings(part)
    families = embeddings[embeddings.assignment_family != ""].groupby("assignment_family", sort=False)
    lines = [line for _, family in families for line in _differences(family)]
    if not lines:
        return None
    data = pd.DataFrame(lines).astype({"ci95_low": float, "ci95_high": float})
    styles = kind_styles(set(data.kind))
    clear = int(((data.ci95_low > 0) | (data.ci95_high < 0)).sum())
    better = int((data.ci95_low > 0).sum())
    title = f"Clearly better than the simplest codes: {better} of {len(data)} comparisons; worse: {clear - better}"
    subtitle = about(
        part,
        f"pairs of equal tables, {part[part.main].task.iloc[0]}; intervals not corrected for their number",
    )
    with rc_context(STYLE):
        figure = page(title, subtitle, (10, 2.4 + 0.5 * len(data)), part.provenance.iloc[0])
        axes = figure.subplots()
        axes.axvline(0, color="black", linewidth=1.2)
        for place, line in enumerate(rows(data)):
            spread = [[line.difference - line.ci95_low], [line.ci95_high - line.difference]]
            bars = spread if line.ci95_is else None
            axes.errorbar(line.difference, place, xerr=bars, capsize=4, **mark(styles[line.kind], 9))
        pairs = [f"{line.configuration}\nagainst {line.against}" for line in rows(data)]
        axes.set_yticks(range(len(data)), pairs, fontsize=11)
        axes.set_ylim(len(data) - 0.5, -0.5)
        note = "; bars: 95 % intervals" if data.ci95_low.notna().any() else ""
        axes.set_xlabel(f"paired difference, {embeddings.metric.iloc[0] or 'score'}{note}")
        settle(figure)
    return Chart(f"{title} · {subtitle}", data, figure)


def _differences(family: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the difference of each configuration of a family to that with the simplest assignment, where they share seeds."""
    known = family.kind.map(lambda kind: SIMPLEST.index(kind) if kind in SIMPLEST else len(SIMPLEST))
    simplest, *others = rows(family.assign(known=known).sort_values(["known", "configuration"]))
    for row in others:
        ours, theirs = paired(row.by_seed, simplest.by_seed)
        change = summarise(ours - theirs)
        if change.mean is not None:
            names = {"configuration": row.configuration, "against": simplest.configuration, "kind": row.kind}
            ends = {"ci95_low": change.low, "ci95_high": change.high, "ci95_is": change.interval}
            yield names | {"difference": change.mean, **ends, "paired_seeds": change.n}


@figure("grid")
def grids(part: pd.DataFrame) -> Chart | None:
    """Return heat maps of the score over subspaces x rows, a map for each family of embeddings in which both vary."""
    names = {"config.embedding.subspaces": "subspaces", "config.embedding.rows": "rows"}
    lines = _embeddings(part).drop(columns="rows").rename(columns=names)
    families = lines.dropna(subset=["subspaces", "rows", "mean"]).groupby("table_family", sort=False)
    shown = [f for _, f in families if len(f) > 3 and f.subspaces.nunique() > 1 and f.rows.nunique() > 1]
    if not shown:
        return None
    data = pd.concat([family.assign(panel=place) for place, family in enumerate(shown, 1)], ignore_index=True)
    data = data[["panel", "kind", "configuration", "subspaces", "rows", "mean"]]
    data = data.astype({"subspaces": int, "rows": int})
    best, limits = data.sort_values("mean", kind="stable").iloc[-1], (data["mean"].min(), data["mean"].max())
    title = f"Best: {best.subspaces} subspaces of {best.rows} rows, {best['mean']:.1f}; worst measured: {limits[0]:.1f}"
    subtitle = about(part, f"{part[part.main].task.iloc[0]}, over subspaces and rows; empty: not measured")
    with rc_context(STYLE | {"axes.grid": False}):
        abreast, deep = min(len(shown), MAPS_ABREAST), -(-len(shown) // MAPS_ABREAST)
        figure = page(title, subtitle, (max(10, 5 * abreast), 1 + 5 * deep), part.provenance.iloc[0])
        panels = figure.subplots(deep, abreast, squeeze=False).flatten()
        for axes, (_, family) in zip(panels[: len(shown)], data.groupby("panel"), strict=True):
            _heat_map(axes, family, limits, shown[0].metric.iloc[0] or "score")
        for empty in panels[len(shown) :]:
            empty.remove()
        settle(figure)
    return Chart(f"{title} · {subtitle}", data, figure)


def _heat_map(axes: Axes, family: pd.DataFrame, limits: tuple[float, float], metric: str) -> None:
    """Draw a family's map with the mean in each field; its colours go from one of the `limits` to the other."""
    low, high = limits
    table = family.pivot_table(index="rows", columns="subspaces", values="mean")
    colours = matplotlib.colormaps["cividis"]  # its lightness grows evenly: it reads in grey too
    # An image would hold pixels, where this holds shapes.
    axes.pcolormesh(table, cmap=colours, vmin=low, vmax=high if high > low else low + 1)
    for (y, x), value in np.ndenumerate(table.to_numpy()):
        if not np.isnan(value):
            colour = "white" if value < (low + high) / 2 else "black"
            axes.text(x + 0.5, y + 0.5, f"{value:.1f}", ha="center", va="center", color=colour)

    axes.set_xticks(np.arange(table.shape[1]) + 0.5, [str(name) for name in table.columns])
    axes.set_yticks(np.arange(table.shape[0]) + 0.5, [str(name) for name in table.index])
    axes.set_xlabel("subspaces (f)")
    axes.set_ylabel("rows of each table (Q)")
    words = family.configuration.iloc[0].split()
    extra = " ".join(word for word in words if not word.startswith(("f=", "Q=", "s=")))
    axes.set_title(f"{extra}\n{metric}")


@figure("recovery")
def recovery(part: pd.DataFrame) -> Chart | None:
    """Return the loss over the steps of recovery, a line for each recovered embedding.

    A trimmed vocabulary's cannot be compared: it is the distance of a text's mean state, the others' that of each token's state.
    """
    lines = _embeddings(part)
    lines = lines[lines["recovery.curve"].map(lambda curve: isinstance(curve, list) and len(curve) > 0)]
    curves, axes = list(lines["recovery.curve"]), {"step": "step", "loss": "training loss"}
    if not curves:
        return None
    said = message(part)
    place = next((place for place, name in enumerate(lines.config_id) if said and name == said.config_id), 0)
    (first, high), (last, low) = curves[place][0], curves[place][-1]
    name = point_name(lines.iloc[place].to_dict())
    title = f"{name}: the loss falls from {high:.3g} at step {first:,} to {low:.3g} at step {last:,}"
    differ = ", the numbers of steps differ" if len({curve[-1][0] for curve in curves}) > 1 else ""
    trimmed = (
        "; a trimmed vocabulary's loss is of each text's mean state"
        if (lines.kind == "trimmed").any()
        else ""
    )
    return _curves(
        title, about(part, f"recovery before the fine-tuning{differ}{trimmed}"), lines, curves, axes
    )


def _embeddings(part: pd.DataFrame) -> pd.DataFrame:
    """Return the main column's lines that differ in nothing but the embedding and its training: those whose body is in fp32."""
    return part[part.main & (part.body == "fp32")]


def _curves(
    title: str, subtitle: str, lines: pd.DataFrame, curves: list[Any], names: dict[str, str]
) -> Chart | None:
    """Return a figure of at most MOST_LINES curves, from the largest to the smallest embedding, named beside the panel.

    `curves` are the points (x, y) of each line, `names` the CSV file's columns for x and y with the axes' names. The title's
    configuration is among them.
    """
    if not curves:
        return None
    labels = list(zip(lines.configuration, lines.kind, strict=True))
    spread = np.linspace(0, len(lines) - 1, min(MOST_LINES - 1, len(lines))).round().astype(int)
    said = message(lines)
    own = [place for place, name in enumerate(lines.config_id) if said and name == said.config_id]
    chosen = sorted({*spread, *own})
    texts = [point_name(row) for row in lines.to_dict("records")]
    shown = [
        (texts[place], labels[place][1], *map(list, zip(*curves[place], strict=True))) for place in chosen
    ]
    plain = [bool(lines.plain.iloc[place]) for place in chosen]
    styles = kind_styles({kind for _, kind, *_ in shown})
    with rc_context(STYLE):
        figure = page(title, subtitle, (10, 6), lines.provenance.iloc[0])
        axes = figure.subplots()
        for (_, kind, x, y), hollow in zip(shown, plain, strict=True):
            line = {**mark(styles[kind], 7, hollow), "linestyle": "-", "linewidth": 1.6}
            axes.plot(x, y, markevery=max(1, len(x) // 10), **line)
        axes.set(**dict(zip(("xlabel", "ylabel"), names.values(), strict=True)))
        first, last = min(x[0] for *_, x, _ in shown), max(x[-1] for *_, x, _ in shown)
        axes.set_xlim(right=last + 0.45 * (last - first))  # room for the names
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= last])
        settle(figure)
        label_ends(axes, [(x[-1], y[-1], label) for label, _, x, y in shown])
    data = [(*label, *point) for label, curve in zip(labels, curves, strict=True) for point in curve]
    return Chart(
        f"{title} · {subtitle}", pd.DataFrame(data, columns=["configuration", "kind", *names]), figure
    )
