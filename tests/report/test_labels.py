"""Direct labels keep off each other and inside the axes."""

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.report.labels import Label, Segment, place_labels
from bench.report.style import label_ends


def axes() -> Axes:
    figure = Figure(figsize=(10, 6))
    FigureCanvasAgg(figure)
    made = figure.subplots()
    made.set(xlim=(0, 10), ylim=(0, 10))
    return made


def test_close_points_get_labels_that_do_not_overlap() -> None:
    chart = axes()
    labels = [Label(5, 5 + i / 10, f"configuration {i}") for i in range(6)]
    assert place_labels(chart, labels, [Segment(0, 5, 10, 5)]) == []
    boxes = [text.get_window_extent() for text in chart.texts]
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    room = chart.get_window_extent()
    assert all(
        room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1 for box in boxes
    )


def test_where_there_is_no_room_labels_are_left_out() -> None:
    chart = axes()
    labels = [Label(5, 5, "a long label that needs much room " * 2) for i in range(30)]
    left_out = place_labels(chart, labels, [])
    assert left_out
    assert len(chart.texts) == 30 - len(left_out)
    boxes = [text.get_window_extent() for text in chart.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_a_label_keeps_off_the_ring_around_its_point_and_off_its_interval() -> None:
    chart = axes()
    place_labels(chart, [Label(5, 5, "configuration")], [Segment(5, 4, 5, 6)])
    (box,) = (text.get_window_extent() for text in chart.texts)
    x, y = chart.transData.transform((5, 5))
    gap = max(abs(x - (box.x0 + box.x1) / 2) - box.width / 2, abs(y - (box.y0 + box.y1) / 2) - box.height / 2)
    assert gap * 72 / chart.figure.dpi > 10  # points: the ring of the knee
    assert not (
        box.x0 <= x <= box.x1
        and box.y0 <= chart.transData.transform((5, 6))[1]
        and box.y1 >= chart.transData.transform((5, 4))[1]
    )


def test_a_label_keeps_off_points_that_have_none() -> None:
    free = axes()
    place_labels(free, [Label(5, 5, "configuration")], [])
    (box,) = (text.get_window_extent() for text in free.texts)
    x, y = free.transData.inverted().transform(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
    chart = axes()
    place_labels(chart, [Label(5, 5, "configuration")], [], [(x, y)])
    (other,) = (text.get_window_extent() for text in chart.texts)
    assert not other.contains(*chart.transData.transform((x, y)))


def test_a_label_stands_no_nearer_to_another_point_than_to_its_own() -> None:
    free = axes()
    place_labels(free, [Label(5, 5, "configuration")], [])
    (box,) = (text.get_window_extent() for text in free.texts)
    other = (box.x1 + 9 * free.figure.dpi / 72, (box.y0 + box.y1) / 2)  # 9 points off, which covers nothing
    chart = axes()
    place_labels(
        chart, [Label(5, 5, "configuration")], [], [tuple(free.transData.inverted().transform(other))]
    )
    (box,) = (text.get_window_extent() for text in chart.texts)
    own = chart.transData.transform((5, 5))
    gaps = [max(box.x0 - x, x - box.x1, box.y0 - y, y - box.y1) for x, y in (own, other)]
    assert gaps[0] < gaps[1]


def test_names_at_the_ends_of_equal_lines_stay_apart_and_below_the_panels_top() -> None:
    chart = axes()
    label_ends(chart, [(5, 9.9, f"line {i}") for i in range(6)] + [(5, 1, "another")])
    chart.figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in chart.texts]  # without its leader
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert max((box.y0 + box.y1) / 2 for box in boxes) <= chart.get_window_extent().y1 + 1
    assert (
        len({box.x0 for box in boxes}) == 1
        and min(box.y0 for box in boxes) < chart.transData.transform((5, 1.5))[1]
    )
