"""The page's chart: points lost against the stored bytes of the embedding, as an SVG whose points brief.js can move."""

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
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


def svg(
    items: Sequence[Item], matter: Sequence[int], candidates: Sequence[int], words: dict[str, Any]
) -> str:
    """Return the SVG: in #points a <use data-place> for each item, dense last; beside it #front, #level, #levels and .letter.

    An item that was measured on some of the tasks that matter is partial: pale, and no part of the front. One that was measured on
    none is hidden. `candidates` are the indices of the items with a letter.
    """
    # What is shown where.
    changes = [*(change(item, matter) for item in items[:-1]), 0.0]
    known = [value for value in changes if value is not None]
    low, step = scale(known)
    heights = [low if value is None else value for value in changes]
    whole = [
        place
        for place, item in enumerate(items)
        if mean(item, matter) is not None and changes[place] is not None
    ]
    best = pareto_front([items[place]["bytes"] for place in whole], [heights[place] for place in whole])
    front = [whole[place] for place in best]
    styles = kind_styles({item["row"]["kind"] for item in items})
    looks = [(kind, plain) for kind in styles for plain in (False, True)]
    groups = {
        look: [p for p, item in enumerate(items) if (item["row"]["kind"], bool(item["row"]["plain"])) == look]
        for look in looks
    }
    order = [place for places in groups.values() for place in places]

    # The drawing. Text stays text, which the reader's browser sets in its fonts: this machine's fonts must leave no trace.
    own_font = {"svg.fonttype": "none", "font.family": [OWN_FONT]}
    with rc_context(STYLE | own_font | {"axes.grid": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_ylim(low, low + LEVELS * step)
        axes.set_yticks([low + k * step for k in range(LEVELS + 1)])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: minus(value, digits(step))))
        axes.set_ylabel(words["chart"]["y"])
        axes.xaxis.set_major_locator(LogLocator())
        axes.xaxis.set_major_formatter(EngFormatter(unit="B", sep="\u00a0"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(words["chart"]["x"])
        axes.margins(x=0.08)
        for label in axes.get_yticklabels():
            label.set_gid("tick-label")
        axes.grid(axis="y", zorder=0)
        axes.axhline(heights[-1], color="black", linewidth=1.2, gid="level")
        steps = axes.step([items[p]["bytes"] for p in front], [heights[p] for p in front], where="post")
        steps[0].set(color="#009E73", linewidth=1.8, alpha=0.7, gid="front")
        for (kind, plain), places in groups.items():
            x, y = [items[place]["bytes"] for place in places], [heights[place] for place in places]
            if places:
                axes.plot(x, y, gid=f"kind-{kind}", **mark(styles[kind], 10, plain), clip_on=False)
        names = {item["row"]["kind"]: item["row"]["plain_name"] for item in items}
        names |= {kind: text for kind, text in words["kinds"].items() if kind in names}
        handles = [Line2D([], [], label=names[kind], **mark(style, 9)) for kind, style in styles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        ends = axes.get_window_extent().get_points()[::-1, 1] * 72 / figure.dpi
        top, bottom = 72 * figure.get_figheight() - ends

    # What brief.js looks for.
    about = {"id": "chart", "role": "img", "aria-label": words["chart"]["about"]}
    marks = {}
    for place in order:
        partial = [other for other in range(len(items) - 1) if other not in whole]
        groups_ = (("front", front), ("candidate", candidates), ("partial", partial))
        classes = [name for name, places in groups_ if place in places]
        marks[place] = {"data-place": str(place), "class": " ".join(classes)}
        if changes[place] is None:
            marks[place]["hidden"] = ""
    letters = dict(zip(words["letters"], candidates, strict=False))
    edges = {"data-top": f"{top:.1f}", "data-bottom": f"{bottom:.1f}"}
    return _for_the_script(text.getvalue(), about | edges, marks, letters)


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
