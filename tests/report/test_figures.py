"""Figures are made where their data exist, show the numbers of the tables, and name what they were made from."""

import re
import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from bench.report import figures, style, write_report
from bench.report.breakdown import breakdown_table
from bench.report.runs import to_frame
from bench.report.scores import score_table, sections
from bench.store import Record, each
from tests.report.factory import record, xnli

RESULTS = Path(__file__).resolve().parents[2] / "results"


def measured(made: Record, small: float, device: str = "cuda-a", ratio: float | None = 1.0) -> Record:
    """Give the record what `bench latency` writes: `small` ms for one row of 128 tokens, ten times that for 32 rows, and memory."""
    cells = [
        {"batch": batch, "tokens": tokens, "p50_ms": factor * small * tokens / 128, "ratio_to_dense": ratio}
        | {"ratio_low": ratio, "ratio_high": ratio, "rows_per_second": 1.0}
        for batch, factor in ((1, 1), (32, 10))
        for tokens in (16, 128)
    ]
    sizes = (
        "before_bytes",
        "resident_bytes",
        "peak_bytes",
        "file_bytes",
        "cold_start_seconds",
        "load_seconds",
    )
    profile: Any = {"latency": cells, **dict.fromkeys(sizes, 345)}
    made["cost"] = {"peak_memory_bytes": 10**9, "latency_ms": None, "profiles": {device: profile}}
    return made


def points(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "figures" / f"{name}--minilm--glue.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of records that have everything a figure can show."""
    records = []
    for seed in range(2):
        records.append(measured(record(seed=seed, value=0.8 + seed / 100), 4.0, ratio=None))
        for method, value in (("sequential", 0.5), ("random", 0.55), ("contextual", 0.7)):
            records.append(measured(record(method, seed=seed, value=value + seed / 50), 40.0, ratio=1.25))
        for f in (2, 4):
            for rows in (16, 64):
                change: dict[str, Any] = {
                    "embedding.subspaces": f,
                    "embedding.rows": rows,
                    "recovery": {"name": "distil", "steps": 10},
                }
                made = record("pq8", seed=seed, value=0.6 + f * rows / 10000, changes=change)
                made["fit"] = {
                    "relative_error": 0.5,
                    "decile_errors": [0.1 * i for i in range(1, 11)],
                    "distinct_codes": 9,
                    "codes_sha256": "c",
                }
                made["recovery"] = {"name": "distil", "curve": [[5, 0.5], [10, 0.2 + f / 100]]}
                records.append(made)
    records.append(record("sequential", seed=2, value=0.5))
    folder = tmp_path_factory.mktemp("report")
    write_report(records, [], folder)
    return folder


def test_each_figure_is_there_in_three_formats_with_its_points(folder: Path) -> None:
    names = {path.name.split("--")[0] for path in (folder / "figures").iterdir()}
    assert names == {"score-memory", "score-bytes", "costs", "deciles", "assignments", "grid", "recovery"}
    for name in names:
        files = {path.suffix: path.read_bytes() for path in (folder / "figures").glob(f"{name}--*")}
        assert b"<image" not in files[".svg"], "nothing is rasterised"
        assert (
            files[".png"][:4] == b"\x89PNG"
            and files[".pdf"][:4] == b"%PDF"
            and files[".svg"][:5] == b"<?xml"
            and files[".csv"]
        )


def test_a_long_title_stays_on_its_page() -> None:
    with rc_context(style.STYLE):
        made = style.page(
            "97.5 % of the embedding saved for 0.2 points, and no more than 1 point (p < 0.05, corrected for the best of 123)",
            "minilm on xnli [not official: mnli:train_subset (76,476 rows)]: every language against English, "
            * 2,
            (10, 3),
            "made here",
        )
    for text in made.texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= made.bbox.width


def test_what_needs_no_table_is_a_level_and_no_part_of_the_front(tmp_path: Path) -> None:
    floor = record("pq8", value=0.9, changes={"embedding.name": "hash_only"})
    assert floor["size"]
    floor["size"]["embedding_bytes"] = 4
    runs = [record(value=0.8), record("sequential", value=0.55), floor]
    write_report(runs, [], tmp_path)
    drawn = points(tmp_path, "score-bytes").set_index("kind")
    assert drawn.on_front.to_dict() == {"dense": True, "sequential": True, "hash_only": False}
    chart = figures.main_score(score_table(to_frame(runs), 1.0), figures.BYTES)
    assert chart
    axes = chart.figure.axes[0]
    levels = {
        float(line.get_ydata()[0]): line.get_linestyle() for line in axes.lines if len(line.get_ydata()) == 2
    }
    assert axes.get_xlim()[0] > 0.001, "in MB: the floor's four bytes do not stretch the axis"
    assert (levels[90.0], levels[50.0]) == ("-.", ":"), "the floor, and always the commonest answer"


def test_the_level_of_always_the_commonest_answer_is_the_records(tmp_path: Path) -> None:
    runs = [record(value=0.8), record("pq8", value=0.7)]
    for run in runs:
        assert run["task"]
        run["task"]["majority"] = 0.6838
    write_report(runs, [], tmp_path)
    assert set(points(tmp_path, "score-bytes").majority) == {68.38}


def test_the_title_says_what_is_saved_for_what_loss_as_strongly_as_the_interval_allows() -> None:
    def title(*values: tuple[float, ...], margin: float = 1.0, tasks: Sequence[str] = ("mrpc",)) -> str:
        methods = zip(("dense", "pq48", "pq8"), values, strict=False)
        runs = [record(m, task, s, v) for m, many in methods for s, v in enumerate(many) for task in tasks]
        chart = figures.main_score(score_table(to_frame(runs), margin), figures.BYTES)
        assert chart
        return chart.title.partition(" · ")[0].replace("\u00a0", " ")

    sure = title((0.80, 0.81, 0.80), (0.798, 0.808, 0.7979))
    assert sure == "97.5 % of the embedding saved for 0.2 points, less than 1 point (p < 0.05)"
    smaller = title((0.80, 0.81, 0.80), (0.798, 0.808, 0.7979), (0.78, 0.82, 0.79))
    assert re.fullmatch(
        r"97.5 % .* 1 point \(p < 0.05, corrected for 2\); 99.4 % for 0.7 points \[−\d.\d, \d.\d\]",
        smaller,
    )
    several = title((0.80, 0.81, 0.80), (0.798, 0.808, 0.7979), (0.78, 0.82, 0.79), tasks=("mrpc", "rte"))
    assert "corrected for 2)" in several, "those of the column that the title is about"
    unsure = title((0.80, 0.81, 0.82), (0.79, 0.82, 0.814))
    assert re.fullmatch(r"97.5 % .* saved for 0.2 points \[−2.4, 2.8\]", unsure)
    better = title((0.80, 0.81, 0.82), (0.82, 0.80, 0.821))
    assert re.fullmatch(r"97.5 % .* saved with no loss measured \[−\d.\d, \d.\d\]", better)
    none = title((0.80, 0.81), (0.70, 0.72))
    assert none.startswith(
        "No embedding stays within 1 point of dense: 97.5 % of the embedding saved for 9.5 points ["
    )
    assert title((0.8,), (0.799,)).endswith("(one seed)") and "p <" not in title((0.8,), (0.799,))


def test_untreated_points_are_hollow_and_recovered_ones_full() -> None:
    recovered = record("pq8", value=0.75, changes={"recovery": {"name": "distil", "steps": 10}})
    taught = record("pq16", value=0.76, changes={"training.teacher": "dense"})
    runs = [record(value=0.8), record("pq8", value=0.7), recovered, taught]
    chart = figures.main_score(score_table(to_frame(runs), 1.0), figures.BYTES)
    assert chart
    shown = {
        float(y): line.get_markerfacecolor() == "white"
        for line in chart.figure.axes[0].lines
        if line.get_marker() in ("D", "s")
        for y in line.get_ydata()
    }
    assert shown == {80: True, 70: True, 75: False, 76: False}


def committed() -> list[tuple[str, pd.DataFrame, bool]]:
    """Return the sections of the committed reports and of a task in 15 languages, each with whether it is a breakdown."""
    sections_ = []
    for name in ("", "example/demo", "example/glue_quick"):
        runs = to_frame([found for _, found in each(RESULTS / name) if not isinstance(found, str)])
        sections_ += [(name or "reference", part, False) for part in sections(score_table(runs, 1.0))]
    spoken = to_frame(xnli())
    sections_ += [("xnli", part, True) for part in sections(breakdown_table(spoken, 1.0))]
    sections_ += [("xnli", part, False) for part in sections(score_table(spoken, 1.0))]
    bodies = [
        record(method, value=0.8 - lost, changes={} if body == "fp32" else {"body": body})
        for method, lost in (("dense", 0.0), ("pq8", 0.1))
        for body in ("fp32", "bf16", "int8")
    ]
    for run, saved in zip(bodies, (0, 20, 30) * 2, strict=True):
        run["size"]["total_bytes"] -= saved * 10**6  # type: ignore[index]
    return sections_ + [("bodies", part, False) for part in sections(score_table(to_frame(bodies), 1.0))]


def test_no_text_of_a_figure_overlaps_another_or_a_point_and_none_leaves_the_page() -> None:
    drawn = 0
    for name, part, breakdown in committed():
        for kind in (kind for kind in style.FIGURES if kind.of_breakdown == breakdown):
            chart = kind.draw(part)
            if chart is None:
                continue
            drawn += 1
            where, page = f"{kind.name} of {name}", chart.figure.bbox
            chart.figure.canvas.draw()
            boxes = [(text.get_text(), Text.get_window_extent(text)) for text in written(chart.figure)]
            for text, box in boxes:
                inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
                assert inside, f"{where}: {text!r} leaves the page"
            for (one, box), (other, second) in combinations(boxes, 2):
                wide = min(box.x1, second.x1) - max(box.x0, second.x0)
                high = min(box.y1, second.y1) - max(box.y0, second.y0)
                assert min(wide, high) < 1, f"{where}: {one!r} overlaps {other!r}"
            if kind.name.startswith("score"):
                labels = [Text.get_window_extent(text) for text in chart.figure.axes[0].texts]
                assert 1 <= len(labels) <= figures.MOST_LABELS, where
                axes = chart.figure.axes[0]
                marks = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
                points = [axes.transData.transform(xy) for line in marks for xy in line.get_xydata()]
                assert not [xy for xy in points for box in labels if box.contains(*xy)], (
                    f"{where}: a label lies over a point"
                )
    assert drawn > 20


def written(page: Figure) -> list[Text]:
    """Return all texts that a figure shows; matplotlib also keeps labels of ticks outside the axes, which it does not draw."""
    texts = [*page.texts, *(text for legend in page.legends for text in legend.get_texts())]
    for axes in (one for outer in page.axes for one in (outer, *outer.child_axes)):
        texts += [*axes.texts, axes.title]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def test_every_figure_says_what_it_was_made_from(folder: Path) -> None:
    digest = re.search(r"ids (\w{12})", (folder / "INDEX.md").read_text())
    assert digest
    for path in (folder / "figures").glob("*.svg"):
        text = path.read_text()
        assert f"17 records (SHA-256 {digest[1]}), newest 2026-01-01; commit 0123abc; device CPU" in text, (
            path.name
        )


def test_assignments_are_compared_pair_by_pair_with_the_simplest(folder: Path) -> None:
    table = points(folder, "assignments").set_index("configuration")
    assert set(table.against) == {"sequential f=3 Q=32"} and set(table.kind) == {"random", "contextual"}
    assert table.loc["contextual f=3 Q=32", "difference"] == pytest.approx(20)
    assert table.loc["contextual f=3 Q=32", "paired_seeds"] == 2, "the seed that only one has is left out"


def test_no_chart_of_the_whole_model_where_all_bodies_are_in_fp32_however_many_processes_draw(
    tmp_path: Path,
) -> None:
    models = ("one", "two", "three")  # three sections are drawn by more than one process
    write_report(
        [
            record(method, task, model=name)
            for name in models
            for method in ("dense", "pq8")
            for task in ("mrpc", "rte")
        ],
        [],
        tmp_path,
    )
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert {f"score-bytes--{name}--glue.png" for name in models} <= drawn
    assert not [name for name in drawn if "total_bytes" in name]


def test_times_that_runs_noted_beside_their_training_are_shown_nowhere(tmp_path: Path) -> None:
    runs = [record(), record("pq8")]
    for run in runs:
        run["cost"] = {
            "peak_memory_bytes": 10**9,
            "latency_ms": {"batch1": 7.77, "batch32": 77.7},
            "profiles": None,
        }
    write_report(runs, [], tmp_path)
    assert not list((tmp_path / "figures").glob("costs--*"))
    assert "7.8 ms" not in (tmp_path / "brief.html").read_text().replace("\u00a0", " ")


def test_letters_that_no_installed_font_has_are_told_with_the_package_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    records = [record(model="日本語"), record("pq8", model="日本語")]
    monkeypatch.setitem(style.STYLE, "font.family", [style.OWN_FONT])
    write_report(records, [], tmp_path)
    assert re.search(r"figures/score-bytes--.*png: 3 of its letters .* fonts-noto-cjk", caplog.text)
    caplog.clear()
    write_report([record(), record("pq8")], [], tmp_path)
    assert "fonts-noto-cjk" not in caplog.text


def test_what_the_drawing_library_warns_of_is_logged_with_the_figures_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = next(kind for kind in style.FIGURES if kind.name == "score-bytes")

    def warning(part: Any) -> Any:
        warnings.warn("the layout does not fit", UserWarning, stacklevel=1)
        return first.draw(part)

    monkeypatch.setattr("bench.report.FIGURES", [first._replace(draw=warning)])
    write_report([record(), record("pq8")], [], tmp_path)
    assert re.search(r"figures/score-bytes--.*png: the layout does not fit", caplog.text)


def test_costs_are_those_in_use_as_shares_of_dense_in_the_same_rounds(folder: Path) -> None:
    table = points(folder, "costs").set_index("configuration").loc["sequential f=3 Q=32"]
    small, large, memory = (table[key] for key in ("latency_ms.small", "latency_ms.large", "memory_bytes"))
    assert small == pytest.approx(5.0), "1.25 times dense's 4 ms, though the machine was busy and took 40"
    assert large == pytest.approx(50.0) and memory == 345
    drawn = next((folder / "figures").glob("costs--*.svg")).read_text()
    said = ("shares of dense on cuda-a by bench latency", "time for 1 × 128 tokens", "peak memory in use")
    assert all(text in drawn for text in said)
    assert (
        "125 % of dense's time for an answer, 100 % of its peak memory in use"
        in (folder / "INDEX.md").read_text()
    )


def test_heat_map_deciles_and_recovery_hold_the_records_values(folder: Path) -> None:
    grid = points(folder, "grid")
    assert set(zip(grid.subspaces, grid.rows, strict=True)) == {(2, 16), (2, 64), (4, 16), (4, 64)}
    assert grid[(grid.subspaces == 4) & (grid.rows == 64)]["mean"].item() == pytest.approx(62.56)
    deciles = points(folder, "deciles")
    assert len(deciles) == 40 and deciles[deciles.decile == 10].relative_error.tolist() == [1.0] * 4
    recovery = points(folder, "recovery")
    assert sorted(recovery[recovery.step == 10].loss) == pytest.approx([0.22, 0.22, 0.24, 0.24])


@pytest.mark.parametrize("name", ["subspace", "trimmed"])
def test_a_trimmed_vocabularys_recovery_is_said_to_have_another_loss(tmp_path: Path, name: str) -> None:
    recovered = record("pq8", changes={"recovery": {"name": "distil"}, "embedding.name": name})
    recovered["recovery"] = {"name": "distil", "curve": [[10, 0.3], [20, 0.2]]}
    write_report([record(), recovered], [], tmp_path)
    said = "a trimmed vocabulary's loss is of each text's mean state" in (tmp_path / "INDEX.md").read_text()
    assert said == (name == "trimmed")


def test_at_most_four_heat_maps_stand_abreast(tmp_path: Path) -> None:
    records = [record()]
    for steps in range(1, 8):
        for f, rows in ((2, 16), (2, 64), (4, 16), (4, 64)):
            changes: dict[str, Any] = {"embedding.subspaces": f, "embedding.rows": rows}
            changes["recovery"] = {"name": "distil", "steps": steps}
            records.append(record("pq8", value=0.5 + steps / 100, changes=changes))
    write_report(records, [], tmp_path)
    assert points(tmp_path, "grid").panel.nunique() == 7
    (picture,) = (tmp_path / "figures").glob("grid--*.png")
    assert max(Image.open(picture).size) <= 2400


def test_a_single_seed_beside_several_is_no_part_of_the_front(tmp_path: Path) -> None:
    runs = [record(method, seed=seed, value=0.7) for method in ("dense", "pq16") for seed in (0, 1)]
    write_report([*runs, record("pq8", value=0.9)], [], tmp_path)
    drawn = points(tmp_path, "score-bytes").set_index("configuration")
    assert drawn.on_front.to_dict() == {"dense": False, "pq f=16 Q=60": True, "pq f=8 Q=64": False}


def test_of_points_of_almost_one_size_the_best_has_the_label(tmp_path: Path) -> None:
    runs = [record(seed=seed, value=0.8) for seed in (0, 1)]
    for rows, size, value in (
        (32, 60_000, 0.6),
        (48, 120_000, 0.7),
        (64, 122_000, 0.75),
        (96, 400_000, 0.78),
    ):
        for seed in (0, 1):
            run = record("pq8", seed=seed, value=value, changes={"embedding.rows": rows})
            assert run["size"]
            run["size"]["embedding_bytes"] = size
            runs.append(run)
    write_report(runs, [], tmp_path)
    drawn = points(tmp_path, "score-bytes").set_index("configuration")
    assert drawn.on_front.all()
    assert set(drawn.index[drawn.label.notna()]) == {"dense", *(f"pq f=8 Q={rows}" for rows in (32, 64, 96))}


def test_both_configurations_that_the_title_names_have_labels(tmp_path: Path) -> None:
    taught = {"training.teacher": "dense"}
    made: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
        ("dense", {}, (0.80, 0.81, 0.80)),
        ("pq48", {}, (0.798, 0.808, 0.7979)),
        ("pq8", {}, (0.78, 0.82, 0.79)),
        ("pq8", taught, (0.79, 0.815, 0.795)),
    ]
    runs = [
        record(method, seed=seed, value=value, changes=changes)
        for method, changes, values in made
        for seed, value in enumerate(values)
    ]
    write_report(runs, [], tmp_path)
    index = (tmp_path / "INDEX.md").read_text().replace("\u00a0", " ")
    assert "97.5 % of the embedding saved for 0.2 points" in index and "; 99.4 % for 0.7 points" in index
    labels = points(tmp_path, "score-bytes").set_index("configuration").label
    assert set(labels.index[labels.notna()]) == {"dense", "pq f=48 Q=60", "pq f=8 Q=64"}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report of two embeddings with three bodies each."""
    records = []
    for method, value in (("dense", 0.8), ("pq8", 0.7)):
        for body, lost, saved in (("fp32", 0.0, 0), ("bf16", 0.01, 20_000_000), ("int8", 0.02, 30_000_000)):
            for seed in range(2):
                made = record(
                    method,
                    seed=seed,
                    value=value - lost + seed / 100,
                    changes={} if body == "fp32" else {"body": body},
                )
                made["size"]["total_bytes"] -= saved
                made["fit"] = {
                    "relative_error": 0.5,
                    "decile_errors": [0.1 * i for i in range(1, 11)],
                    "distinct_codes": 9,
                    "codes_sha256": "c",
                }
                records.append(made)
    folder = tmp_path_factory.mktemp("bodies")
    write_report(records, [], folder)
    return folder


def test_bodies_have_a_chart_of_the_whole_models_bytes(bodies: Path) -> None:
    chart = points(bodies, "score-total_bytes").set_index("configuration")
    pq = "pq f=8 Q=64"
    assert set(chart.index) == {
        label + end for label in ("dense", pq) for end in ("", ", bf16 body", ", int8 body")
    }
    assert (
        chart.loc["dense", "size.total_bytes"] - chart.loc["dense, int8 body", "size.total_bytes"]
        == 30_000_000
    )
    assert chart.on_front.all(), "each is smaller and worse than the next"
    legend = (bodies / "figures" / "score-total_bytes--minilm--glue.svg").read_text()
    assert "stored size of the whole model" in legend and "<!-- product quantisation, int8 body -->" in legend


def test_charts_of_the_embedding_show_fp32_bodies_only(bodies: Path, folder: Path) -> None:
    for name in ("score-memory", "score-bytes"):
        assert set(points(bodies, name).configuration) == {"dense", "pq f=8 Q=64"}
    assert set(points(bodies, "deciles").configuration) == {"pq f=8 Q=64"}
    assert not list((folder / "figures").glob("*total_bytes*")), (
        "without other bodies it would say the same as the embedding's bytes"
    )


def test_a_body_is_compared_with_the_dense_model_in_fp32_and_offered_by_no_brief(bodies: Path) -> None:
    table = pd.read_csv(bodies / "tables" / "results.csv").set_index(["configuration", "task"])
    both = table.loc[("pq f=8 Q=64, int8 body", "mrpc")]
    assert both.difference_to_dense == pytest.approx(-12) and both.paired_seeds == 2 and both.body == "int8"
    assert table.loc[("dense, int8 body", "mrpc")].difference_to_dense == pytest.approx(-2)
    assert both["size.embedding_bytes"] == table.loc[("pq f=8 Q=64", "mrpc")]["size.embedding_bytes"]
    page = (bodies / "INDEX.md").read_text()
    dense, own = (
        int(table.loc[(label, "mrpc"), "size.total_bytes"]) for label in ("dense", "pq f=8 Q=64, int8 body")
    )
    assert f"{own:,} ({100 * (1 - own / dense):.2f} %)" in page and f"{dense:,} (0.00 %)" in page
    assert "int8 body" not in (bodies / "brief.html").read_text()


def test_a_method_that_nobody_styled_is_drawn_like_no_other(tmp_path: Path) -> None:
    unknown = record("pq8", value=0.7, changes={"embedding.name": "brand_new", "embedding.depth": 2})
    write_report([record(), unknown], [], tmp_path)
    drawn = points(tmp_path, "score-bytes").set_index("kind")
    assert drawn.loc["brand_new", "configuration"] == "brand_new f=8 Q=64 depth=2"
    known = style.kind_styles({*style.STYLES, "brand_new"})
    assert len(set(known.values())) == len(known)
