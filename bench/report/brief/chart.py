"""The page's chart: the report's, of score against stored bytes, as an SVG whose points brief.js can move."""

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from bench.report.decision import Item, mean
from bench.report.style import OWN_FONT, STYLE, kind_styles, mark
from bench.statistics import pareto_front

SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
LEVELS = 5  # steps of the vertical axis


def svg(
    items: Sequence[Item], matter: Sequence[int], candidates: Sequence[int], words: dict[str, Any]
) -> str:
    """Return the SVG: in #points a <use data-place> for each item, dense last; beside it #front, #level, #levels and .letter.

    An item without a score on every task that matters is hidden. `candidates` are the indices of the items with a letter.
    """
    # What is shown where.
    scores = [mean(item, matter) for item in items]
    shown = [place for place, score in enumerate(scores) if score is not None]
    known = [score for score in scores if score is not None]
    low, step = scale(known)
    heights = [low if score is None else score for score in scores]
    best = pareto_front([items[place]["bytes"] for place in shown], known)
    front = [shown[place] for place in best]
    styles = kind_styles({item["row"]["kind"] for item in items})
    order = [place for kind in styles for place, item in enumerate(items) if item["row"]["kind"] == kind]

    # The drawing. Text stays text, which the reader's browser sets in its fonts: this machine's fonts must leave no trace.
    own_font = {"svg.fonttype": "none", "font.family": [OWN_FONT]}
    with rc_context(STYLE | own_font | {"axes.grid": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_ylim(low, low + LEVELS * step)
        axes.set_yticks([low + k * step for k in range(LEVELS + 1)])
        axes.yaxis.set_major_formatter(f"{{x:.{digits(step)}f}}")
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
        for kind, style in styles.items():
            places = [place for place in order if items[place]["row"]["kind"] == kind]
            x, y = [items[place]["bytes"] for place in places], [heights[place] for place in places]
            look = {**mark(style, 10), "markeredgecolor": "white", "clip_on": False}
            axes.plot(x, y, gid=f"kind-{kind}", label=kind, **look)
        handles = [line for line in axes.lines if str(line.get_gid()).startswith("kind-")]
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        ends = axes.get_window_extent().get_points()[::-1, 1] * 72 / figure.dpi
        top, bottom = 72 * figure.get_figheight() - ends

    # What brief.js looks for.
    about = {"id": "chart", "role": "img", "aria-label": words["chart"]["about"]}
    marks = {}
    for place in order:
        classes = [name for name, places in (("front", front), ("candidate", candidates)) if place in places]
        marks[place] = {"data-place": str(place), "class": " ".join(classes)}
        if place not in shown:
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

    # The axis's numbers and the points move to two groups; the dense level is hidden with the dense point.
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
        elif group.get("id") == "level" and "hidden" in marks[max(marks)]:
            group.set("hidden", "")
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
