"""The same table "pretrained with it" beside "swapped in": what each loses against the dense model of its own regime."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context

from bench.report.cells import paired
from bench.report.message import point_name
from bench.report.names import HERE
from bench.report.runs import rows
from bench.report.scores import SIZE
from bench.report.style import STYLE, Chart, about, figure, kind_styles, legend, mark, page, settle
from bench.statistics import summarise
from bench.text import minus, one_line

# Of a line of the score table: what the same table loses, by regime.
COLUMN = "regimes"
PRETRAINED, SWAPPED, RECOVERED = "pretrained with it", "swapped in", "swapped in, recovered"
FACTS = ("validation_loss", "perplexity", "tokens", "tokens_per_second", "peak_memory_bytes")


def beside(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the score table with the column `regimes`: in the main lines of models pretrained here, a list of losses by regime.

    Compared are tables of the same kind and bytes in a model of the same width and vocabulary, over the tasks that both were
    scored on in points, each with the dense model of its own regime. Without such models the table is returned as it is.
    """
    if scores.empty or not (scores.weights == HERE).any():
        return scores
    found: list[list[dict[str, Any]] | None] = []
    for _, line in scores.iterrows():
        if line.weights != HERE or not line.main or line.kind == "dense":
            found.append(None)
            continue
        suite = scores[scores.suite == line.suite]
        own = suite[(suite.weights == HERE) & (suite.model == line.model)]
        found.append(list(_compared(line, own, suite[suite.weights == "pretrained"])))
    return scores.assign(regimes=pd.Series(found, index=scores.index, dtype=object))


def _compared(line: Any, own: pd.DataFrame, others: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the table's loss in its own regime, and in those of finished models that have the same table."""
    same = others[(others.kind == line.kind) & (others[SIZE] == line[SIZE]) & (others.body == line.body)]
    same = same[same["size.dense_embedding_bytes"] == line["size.dense_embedding_bytes"]]
    candidates = [(PRETRAINED, line.config_id, own, "")]
    for regime, part in ((SWAPPED, same[same.plain]), (RECOVERED, same[~same.plain])):
        # Of several recipes the one with most scores, and then the first.
        counts = part.groupby("config_id", sort=False).n.sum()
        if len(counts):
            chosen = part[part.config_id == counts.idxmax()]
            model = chosen.model.iloc[0]
            candidates.append((regime, chosen.config_id.iloc[0], others[others.model == model], model))
    tasks = set.intersection(*(_tasks(config_id, part) for _, config_id, part, _ in candidates))
    for regime, config_id, part, model in candidates if len(candidates) > 1 else candidates[:1]:
        if loss := _loss(config_id, part, sorted(tasks)):
            yield {"regime": regime, "of": model or line.model, "tasks": ", ".join(sorted(tasks)), **loss}


def _tasks(config_id: str, part: pd.DataFrame) -> set[str]:
    """Return the tasks in which the configuration has a difference to dense in points."""
    lines = part[(part.config_id == config_id) & ~part.is_mean & (part.scale == 100)]
    return set(lines[lines.higher_is_better.astype(bool) & lines.difference_to_dense.notna()].column)


def _loss(config_id: str, part: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    """Return the mean difference to dense over the tasks and the seeds that both have in every task, with its interval."""
    dense = part[(part.kind == "dense") & part.plain]
    ours, theirs = (
        _by_seed(lines[lines.column.isin(tasks)], len(tasks))
        for lines in (part[part.config_id == config_id], dense)
    )
    values, reference = paired(ours, theirs)
    if not values.size:
        return None
    change = summarise(values - reference)
    return {"difference": change.mean, "low": change.low, "high": change.high, "seeds": change.n}


def _by_seed(lines: pd.DataFrame, tasks: int) -> dict[int, list[float]]:
    """Return seed -> scores in the order of the tasks' names, for the seeds that every task has."""
    scores = [dict(line.by_seed) for line in rows(lines.sort_values("column")) if line.by_seed]
    if not tasks or len(scores) != tasks:
        return {}
    return {seed: [task[seed][0] for task in scores] for seed in sorted(set.intersection(*map(set, scores)))}


@figure("regimes")
def regimes(part: pd.DataFrame) -> Chart | None:
    """Return a dot plot: each table's loss pretrained with it and swapped in, the largest on top; None for other models."""
    if COLUMN not in part or part[COLUMN].dropna().map(len).sum() == 0:
        return None
    lines = part[part[COLUMN].notna()].sort_values([SIZE, "configuration"], ascending=[False, True])
    data = pd.DataFrame([_line(row, found) for row in lines.to_dict("records") for found in row[COLUMN]])
    data = data.astype({"low": float, "high": float})  # without an interval they are None
    names, styles = list(lines.configuration), kind_styles(set(lines.kind))
    title = _message(data)
    tasks = data.tasks.iloc[0].split(", ")
    subtitle = about(
        part, one_line(f"mean difference to dense over {len(tasks)} task{'s' * (len(tasks) > 1)}")
    )
    with rc_context(STYLE):
        figure = page(title, subtitle, (10, 2.4 + 0.6 * len(names)), part.provenance.iloc[0])
        axes = figure.subplots()
        handles: list[Any] = [
            axes.axvline(0, color="black", linewidth=1.2, label="dense of the same regime", zorder=1)
        ]
        for place, regime in enumerate((PRETRAINED, SWAPPED, RECOVERED)):
            label = regime
            for dot in rows(data[data.regime == regime]):
                height = names.index(dot.configuration) + 0.22 * (place - 1)
                look = mark((styles[dot.kind][0], "osD"[place]), 8, hollow=regime != PRETRAINED)
                spread = np.nan_to_num([[dot.difference - dot.low], [dot.high - dot.difference]])
                drawn = axes.errorbar(dot.difference, height, xerr=spread, zorder=3, label=label, **look)
                handles += [drawn] * (label != "")
                label = ""
        axes.set_yticks(range(len(names)), [_named(row) for row in lines.to_dict("records")])
        axes.set_ylim(len(names) - 0.5, -0.5)
        bars = "; bars: 95 % intervals over seeds" if data.low.notna().any() else ""
        axes.set_xlabel(f"points{bars}")
        legend(figure, handles, 2)
        settle(figure)
    return Chart(f"{title} · {subtitle}", data, figure)


def _line(row: dict[Any, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the CSV file; facts of the pretraining are those of the first seed."""
    known = {key: row.get(f"pretraining.{key}") for key in FACTS} if found["regime"] == PRETRAINED else {}
    return {key: row[key] for key in ("configuration", "kind", SIZE)} | found | known


def _named(row: dict[Any, Any]) -> str:
    """Return the table's name in plain words, with its size and the perplexity of its pretraining."""
    value = row.get("pretraining.perplexity")
    return point_name(row) + ("" if value is None or pd.isna(value) else f"\nperplexity {value:.1f}")


def _message(data: pd.DataFrame) -> str:
    """Return the title: the smallest table that both regimes have, and what it loses in each."""
    wide = data.pivot_table(index="configuration", columns="regime", values="difference", sort=False)
    both = wide.dropna(subset=[SWAPPED]) if SWAPPED in wide else wide.iloc[:0]
    if PRETRAINED not in wide or both.empty:
        return "What tables lose that a model was pretrained with"
    name, last = str(both.index[-1]), both.iloc[-1]
    return f"{name}: {minus(-last[PRETRAINED])} points lost pretrained with it, {minus(-last[SWAPPED])} swapped in"
