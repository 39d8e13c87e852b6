"""The page's chart: points lost against the stored bytes of the embedding, as an SVG whose points brief.js can move."""

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from bench.report.decision import Item, change, mean
from bench.report.style import OWN_FONT, STYLE, kind_styles, mark
from bench.statistics import pareto_front
from bench.text import minus

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
LEVELS = 5  # steps of the vertical axis


class Shown(NamedTuple):
    """What is shown where."""

    # Of each item, in points; 0 for dense; None: measured on no task that matters.
    changes: list[float | None]
    low: float  # foot of the vertical axis
    step: float  # between its numbers
    heights: list[float]  # of each item's point
    whole: list[int]  # indices of the items that were measured on all tasks that matter
    front: list[int]  # of those on the front, from the smallest
    # Kind, without recovery and teacher -> indices, in the order of drawing.
    groups: dict[tuple[str, bool], list[int]]


def svg(
    items: Sequence[Item], matter: Sequence[int], candidates: Sequence[int], words: dict[str, Any]
) -> str:
    """Return the SVG: in #points a <use data-place> for each item, dense last; beside it #front, #level, #levels and .letter.

    An item that was measured on some of the tasks that matter is partial: pale, and no part of the front. One that was measured on
    none is hidden. `candidates` are the indices of the items with a letter.
    """
    shown = _shown(items, matter)
    text, edges = _drawn(shown, items, words)

    # What brief.js looks for.
    about = {"id": "chart", "role": "img", "aria-label": words["chart"]["about"]}
    partial = [place for place in range(len(items) - 1) if place not in shown.whole]
    kinds = (("front", shown.front), ("candidate", candidates), ("partial", partial))
    marks = {}
    for place in (place for places in shown.groups.values() for place in places):
        classes = [name for name, places in kinds if place in places]
        marks[place] = {"data-place": str(place), "class": " ".join(classes)}
        if shown.changes[place] is None:
            marks[place]["hidden"] = ""
    letters = dict(zip(words["letters"], candidates, strict=False))
    return _for_the_script(text, about | edges, marks, letters)


def _shown(items: Sequence[Item], matter: Sequence[int]) -> Shown:
    changes = [*(change(item, matter) for item in items[:-1]), 0.0]
    low, step = scale([value for value in changes if value is not None])
    heights = [low if value is None else value for value in changes]
    whole = [
        place
        for place, item in enumerate(items)
        if mean(item, matter) is not None and changes[place] is not None
    ]
    best = pareto_front([items[place]["bytes"] for place in whole], [heights[place] for place in whole])
    looks = [(item["row"]["kind"], bool(item["row"]["plain"])) for item in items]
    groups = {
        (kind, plain): [place for place, look in enumerate(looks) if look == (kind, plain)]
        for kind in kind_styles({kind for kind, _ in looks})
        for plain in (False, True)
    }
    return Shown(changes, low, step, heights, whole, [whole[place] for place in best], groups)


def _drawn(shown: Shown, items: Sequence[Item], words: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return matplotlib's SVG, and the upper and lower edge of its axes as the root's attributes."""
    # Text stays text, which the reader's browser sets in its fonts: this machine's fonts must leave no trace.
    own_font = {"svg.fonttype": "none", "font.family": [OWN_FONT]}
    with rc_context(STYLE | own_font | {"axes.grid": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.subplots()
        _scales(axes, shown, words["chart"])
        axes.axhline(shown.heights[-1], color="black", linewidth=1.2, gid="level")

        def points(places: Sequence[int]) -> tuple[list[float], list[float]]:
            return [items[place]["bytes"] for place in places], [shown.heights[place] for place in places]

        (steps,) = axes.step(*points(shown.front), where="post")
        steps.set(color="#009E73", linewidth=1.8, alpha=0.7, gid="front")
        styles = kind_styles({kind for kind, _ in shown.groups})
        for (kind, plain), places in shown.groups.items():
            if places:
                axes.plot(*points(places), gid=f"kind-{kind}", **mark(styles[kind], 10, plain), clip_on=False)
        names = {item["row"]["kind"]: item["row"]["plain_name"] for item in items}
        names |= {kind: text for kind, text in words["kinds"].items() if kind in names}
        handles = [Line2D([], [], label=names[kind], **mark(style, 9)) for kind, style in styles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        ends = axes.get_window_extent().get_points()[::-1, 1] * 72 / figure.dpi
        top, bottom = 72 * figure.get_figheight() - ends
    # A processor's way of rounding shows in the sixth decimal: the page must not depend on it.
    rounded = re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.3f}", text.getvalue())
    return rounded, {"data-top": f"{top:.1f}", "data-bottom": f"{bottom:.1f}"}


def _scales(axes: Axes, shown: Shown, words: dict[str, str]) -> None:
    """Set up both axes: bytes on a logarithmic one, and points at round steps."""
    axes.set_xscale("log")
    axes.set_ylim(shown.low, shown.low + LEVELS * shown.step)
    axes.set_yticks([shown.low + k * shown.step for k in range(LEVELS + 1)])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: minus(value, digits(shown.step))))
    axes.set_ylabel(words["y"])
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(EngFormatter(unit="B", sep="\u00a0"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(words["x"])
    axes.margins(x=0.08)
    for label in axes.get_yticklabels():
        label.set_gid("tick-label")
    axes.grid(axis="y", zorder=0)


def _for_the_script(
    text: str, about: dict[str, str], marks: dict[int, dict[str, str]], letters: dict[str, int]
) -> str:
    """Return matplotlib's SVG with the ids and groups that brief.js looks for.

    `about` holds the root's attributes, `marks` those of each point in the order of drawing, `letters` the candidates' indices.
    """
    root = ElementTree.fromstring(text)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib.update(about)

    # The page mentions no other site: no metadata, and links without the namespace that SVG 2 no longer needs.
    for part in root.findall(f"{SVG}metadata"):
        root.remove(part)
    for part in root.iter():
        part.tail, part.text = None, (part.text or "").strip()
        if LINK in part.attrib:
            part.set("href", part.attrib.pop(LINK))

    # The axis's numbers and the points move to two groups.
    levels = ElementTree.Element(f"{SVG}g", {"id": "levels"})
    points = ElementTree.Element(f"{SVG}g", {"id": "points"})
    drawn = []
    for group in list(root.iter(f"{SVG}g")):
        if group.attrib.get("id") == "tick-label":
            levels.extend(list(group))
            group.clear()
        elif str(group.get("id")).startswith("kind-"):
            inner = group[-1]
            drawn += list(inner)
            group.remove(inner)
    uses = dict(zip(marks, drawn, strict=True))
    for place in sorted(uses):
        uses[place].attrib.update(marks[place])
        points.append(uses[place])
    root.extend([levels, points])
    for letter, place in letters.items():
        at = {key: value for key, value in uses[place].items() if key in ("x", "y", "hidden")}
        ElementTree.SubElement(root, f"{SVG}text", {"class": "letter", **at}).text = letter
    ElementTree.register_namespace("", SVG.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")


def scale(scores: Sequence[float]) -> tuple[float, float]:
    """Return the foot of the vertical axis and its round step; LEVELS steps hold all scores. brief.js does the same."""
    low, high = (min(scores), max(scores)) if scores else (0.0, 100.0)
    power = 10 ** math.floor(math.log10(max(high - low, 0.3) / LEVELS))
    steps = (factor * power for factor in (1, 2, 5, 10, 20))
    return next(
        (foot, step) for step in steps if (foot := math.floor(low / step) * step) + LEVELS * step >= high
    )


def digits(step: float) -> int:
    """Return the decimals that the axis's numbers need."""
    return max(0, -math.floor(math.log10(step)))
