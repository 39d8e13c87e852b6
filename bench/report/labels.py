"""Direct labels beside the points of a chart, kept off each other, off points and lines, and inside the axes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

ANGLES = np.deg2rad(np.arange(0, 360, 22.5))
RADII = np.array([13.0, 18.0, 24.0, 36.0, 52.0, 72.0])  # points
MARKER = 7.0  # points: half the side of the square that a marker keeps free
LINE = 1.5  # points: half the width that a line keeps free
NEAR = 30.0  # points: markers that are mistaken for one another
LEADER_FROM = 14.0  # points: a label further off is joined to its point
FAR = -1e6  # corners of the box of a label that is not placed


class Label(NamedTuple):
    """A point in data coordinates and its text; a needed label is never left out."""

    x: float
    y: float
    text: str
    needed: bool


class Segment(NamedTuple):
    """A horizontal or vertical line in data coordinates."""

    x0: float
    y0: float
    x1: float
    y1: float


def place_labels(
    axes: Axes, labels: Sequence[Label], lines: Sequence[Segment], unnamed: Sequence[tuple[float, float]] = ()
) -> list[str]:
    """Draw the labels at their cheapest positions and return the texts of those left out.

    Labels keep off the `lines` and the `unnamed` points, which have no label. A label that would cover another is left out
    unless it is needed. The axes' layout must be final. Greedy: the best of 96 positions for each label from the top down,
    twice.
    """
    if not labels:
        return []

    # Boxes of all that labels keep off, in points.
    points_per_pixel = 72 / axes.figure.dpi
    anchors = axes.transData.transform([label[:2] for label in labels]) * points_per_pixel
    room = np.array(axes.get_window_extent().extents) * points_per_pixel
    ends = axes.transData.transform(np.array(lines).reshape(-1, 2)).reshape(-1, 2, 2) * points_per_pixel
    thin = np.hstack([ends.min(axis=1) - LINE, ends.max(axis=1) + LINE])
    markers = np.hstack([anchors - MARKER, anchors + MARKER])
    rest = axes.transData.transform(np.array(unnamed).reshape(-1, 2)) * points_per_pixel
    rest = np.hstack([rest - MARKER, rest + MARKER])

    # The labels, drawn to know their sizes, then moved to the best positions.
    white = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": "#222222", "bbox": white, "zorder": 6}
    drawn = [axes.text(*label[:3], **style) for label in labels]
    sizes = np.array([text.get_window_extent().size for text in drawn]) * points_per_pixel
    boxes = np.full((len(labels), 4), FAR)
    downwards = np.lexsort((anchors[:, 0], -anchors[:, 1]))
    for index in [*downwards, *downwards]:
        others = np.delete(boxes, index, axis=0), np.delete(markers, index, axis=0)
        boxes[index] = _best(anchors[index], sizes[index], *others, rest, thin, room)

    # Those that cover another go; those far from their point are joined to it.
    left_out = []
    for index in sorted(range(len(labels)), key=lambda i: labels[i].needed):
        label, box = labels[index], boxes[index].copy()
        if not label.needed and _overlap(box[None], np.delete(boxes, index, axis=0)).sum() > 1:
            boxes[index] = FAR
            left_out.append(label.text)
            drawn[index].remove()
            continue
        x, y = axes.transData.inverted().transform((box[:2] + box[2:]) / 2 / points_per_pixel)
        drawn[index].set_position((x, y))
        if np.hypot(*(anchors[index] - anchors[index].clip(box[:2], box[2:]))) > LEADER_FROM:
            axes.plot([label.x, x], [label.y, y], color="#777777", linewidth=0.9, zorder=3)
    return left_out


def _best(
    anchor: np.ndarray,
    size: np.ndarray,
    others: np.ndarray,
    markers: np.ndarray,
    rest: np.ndarray,
    thin: np.ndarray,
    room: np.ndarray,
) -> np.ndarray:
    """Return the cheapest box (x0, y0, x1, y1) around the anchor, in points; costs are in square points.

    `others` are the boxes of the other labels, `markers` those of their points, `rest` those of points without a label, `thin`
    those of lines; `room` is the axes' box.
    """
    # All positions.
    radius, angle = (grid.ravel() for grid in np.meshgrid(RADII, ANGLES, indexing="ij"))
    centre = anchor + np.stack([np.cos(angle), np.sin(angle)], axis=1) * (radius[:, None] + size / 2)
    boxes = np.hstack([centre - size / 2, centre + size / 2])
    own = np.hstack([anchor - MARKER, anchor + MARKER])

    # What a box covers: the outside, labels, markers, lines.
    outside = size.prod() - _overlap(boxes, room[None])[:, 0]
    hidden = _overlap(boxes, others).sum(axis=1)
    marked = _overlap(boxes, np.vstack([markers, own, rest])).sum(axis=1)
    crossed = _overlap(boxes, thin).sum(axis=1)

    # What the line from a label to its point goes through.
    blocks = np.vstack([others, markers])
    leader = (anchor + (centre - anchor) * np.linspace(0.15, 0.85, 5)[:, None, None])[:, :, None]
    through = ((leader > blocks[:, :2]) & (leader < blocks[:, 2:])).all(axis=-1).any(axis=0).sum(axis=1)

    # Of two close points the upper point's label goes up, and above the lower point's label.
    place = markers[:, :2] + MARKER
    near = (np.abs(anchor - place) < NEAR).all(axis=1)
    above = anchor[1] - place[:, 1]
    apart = above * (centre[:, 1:] - (others[:, 1] + others[:, 3]) / 2)
    swapped = ((apart < 0) & near & (others[:, 0] > FAR)).sum(axis=1)
    inward = ((above * (centre[:, 1:] - anchor[1]) < 0) & near).any(axis=1)
    askew = np.abs(np.sin(2 * angle))  # straight beside, above or below reads best
    cost = 20 * outside + 3000 * (hidden > 1) + 10 * hidden + 15 * marked + 3 * crossed + 400 * through
    cost = cost + 1500 * swapped + 300 * inward + 6 * radius + 8 * askew
    best: np.ndarray = boxes[np.argmin(cost)]
    return best


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the (n, m) areas that n boxes share with m others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: np.ndarray = np.clip(high - low, 0, None).prod(axis=-1)
    return shared
