"""Direct labels keep off each other and inside the axes."""

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.report.labels import Label, Segment, place_labels


def axes() -> Axes:
    figure = Figure(figsize=(10, 6))
    FigureCanvasAgg(figure)
    made = figure.subplots()
    made.set(xlim=(0, 10), ylim=(0, 10))
    return made


def test_close_points_get_labels_that_do_not_overlap() -> None:
    chart = axes()
    labels = [Label(5, 5 + i / 10, f"configuration {i}", True) for i in range(6)]
    assert place_labels(chart, labels, [Segment(0, 5, 10, 5)]) == []
    boxes = [text.get_window_extent() for text in chart.texts]
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    room = chart.get_window_extent()
    assert all(room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1 for box in boxes)


def test_where_there_is_no_room_only_needed_labels_stay() -> None:
    chart = axes()
    labels = [Label(5, 5, "a long label that needs much room " * 2, i == 7) for i in range(30)]
    left_out = place_labels(chart, labels, [])
    assert left_out
    assert len(chart.texts) == 30 - len(left_out)
    boxes = [text.get_window_extent() for text in chart.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
