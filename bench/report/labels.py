"""Direct labels beside the points of a chart: off each other, off points and lines, and inside the axes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

ANGLES = np.deg2rad(np.arange(0, 360, 15.0))
RADII = np.array([12.0, 17.0, 24.0, 36.0, 52.0, 72.0, 96.0, 124.0])  # points
MARKER = 6.5  # points: half the side of the square that a marker keeps free
LINE = 1.5  # points: half the width that a line keeps free
LEADER_FROM = 14.0  # points: a label further off is joined to its point
FAR = -1e6  # corners of the box of a label that is not placed


class Label(NamedTuple):
    """A point in data coordinates and its text."""

    x: float
    y: float
    text: str


class Segment(NamedTuple):
    """A horizontal or vertical line in data coordinates."""

    x0: float
    y0: float
    x1: float
    y1: float


def place_labels(
    axes: Axes, labels: Sequence[Label], lines: Sequence[Segment], points: Sequence[tuple[float, float]] = ()
) -> list[str]:
    """Draw the labels at their cheapest positions and return the texts of those left out.

    A label that would cover another label or a point, its own or one of `points`, is left out; `lines` it avoids where it can.
    The axes' layout must be final. Greedy: the best of 192 positions for each label from the top down, twice.
    """
    if not labels:
        return []

    # Boxes of all that labels keep off, in points.
    points_per_pixel = 72 / axes.figure.dpi
    anchors = axes.transData.transform([label[:2] for label in labels]) * points_per_pixel
    others = axes.transData.transform(np.array(points).reshape(-1, 2)) * points_per_pixel
    room = np.array(axes.get_window_extent().extents) * points_per_pixel
    ends = axes.transData.transform(np.array(lines).reshape(-1, 2)).reshape(-1, 2, 2) * points_per_pixel
    thin = np.hstack([ends.min(axis=1) - LINE, ends.max(axis=1) + LINE])
    markers = np.vstack([anchors, others])
    markers = np.hstack([markers - MARKER, markers + MARKER])

    # The labels, drawn to know their sizes, then moved to the best positions.
    white = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.4}
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": "#222222", "bbox": white, "zorder": 6}
    drawn = [axes.text(*label, **style) for label in labels]
    sizes = np.array([text.get_window_extent().size for text in drawn]) * points_per_pixel
    boxes = np.full((len(labels), 4), FAR)
    downwards = np.lexsort((anchors[:, 0], -anchors[:, 1]))
    for index in [*downwards, *downwards]:
        taken = np.delete(boxes, index, axis=0)
        boxes[index] = _best(anchors[index], sizes[index], taken, markers, thin, room)

    # Those that cover another or a point go; those far from their point are joined to it.
    left_out = []
    for index, label in enumerate(labels):
        box = boxes[index].copy()
        taken = np.vstack([np.delete(boxes, index, axis=0), markers])
        outside = sizes[index].prod() - _overlap(box[None], room[None]).sum()
        if _overlap(box[None], taken).sum() > 1 or outside > 1:
            boxes[index] = FAR
            left_out.append(label.text)
            drawn[index].remove()
            continue
        x, y = axes.transData.inverted().transform((box[:2] + box[2:]) / 2 / points_per_pixel)
        drawn[index].set_position((x, y))
        if np.hypot(*(anchors[index] - anchors[index].clip(box[:2], box[2:]))) > LEADER_FROM:
            axes.plot(
                [label.x, x], [label.y, y], color="#777777", linewidth=0.7, linestyle=(0, (4, 2)), zorder=3
            )
    return left_out


def _best(
    anchor: np.ndarray,
    size: np.ndarray,
    taken: np.ndarray,
    markers: np.ndarray,
    thin: np.ndarray,
    room: np.ndarray,
) -> np.ndarray:
    """Return the cheapest box (x0, y0, x1, y1) around the anchor, in points; costs are in square points.

    `taken` are the boxes of the other labels, `markers` those of all points, `thin` those of lines; `room` is the axes' box.
    """
    # All positions.
    radius, angle = (grid.ravel() for grid in np.meshgrid(RADII, ANGLES, indexing="ij"))
    centre = anchor + np.stack([np.cos(angle), np.sin(angle)], axis=1) * (radius[:, None] + size / 2)
    boxes = np.hstack([centre - size / 2, centre + size / 2])

    # What a box covers, and what the line from the box to its point goes through.
    outside = size.prod() - _overlap(boxes, room[None])[:, 0]
    covered = _overlap(boxes, np.vstack([taken, markers])).sum(axis=1)
    crossed = _overlap(boxes, thin).sum(axis=1)
    blocks = np.vstack([taken, markers[(markers[:, :2] + MARKER != anchor).any(axis=1)]])
    leader = (anchor + (centre - anchor) * np.linspace(0.15, 0.85, 7)[:, None, None])[:, :, None]
    through = ((leader > blocks[:, :2]) & (leader < blocks[:, 2:])).all(axis=-1).any(axis=0).sum(axis=1)

    # A label that stands further from its point than from another reads as the other's.
    centres = (blocks[:, :2] + blocks[:, 2:]) / 2
    apart = np.maximum(boxes[:, None, :2] - centres, centres - boxes[:, None, 2:]).clip(0)
    closer = (np.hypot(*np.moveaxis(apart, -1, 0)) < radius[:, None]).sum(axis=1)

    askew = np.abs(np.sin(2 * angle))  # straight beside, above or below reads best
    cost = 60 * outside + 3000 * (covered > 1) + 60 * covered + 3 * crossed + 3000 * through + 60 * closer
    best: np.ndarray = boxes[np.argmin(cost + 6 * radius + 8 * askew)]
    return best


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the (n, m) areas that n boxes share with m others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: np.ndarray = np.clip(high - low, 0, None).prod(axis=-1)
    return shared
