"""The decision brief in a real headless browser: point, choose, type, print; as its script answers, so does Python."""

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report import brief, decision
from bench.report.runs import to_frame
from bench.report.scores import score_table
from bench.settings.schema import ReportConfig, RunConfig
from tests.report.factory import record
from tests.report.test_brief import PRICES, golden

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the page in each language, and one without an answer."""
    folder = tmp_path_factory.mktemp("brief")
    runs = golden(batch1=12.0, batch32=64.0)
    for name, language, records in (
        ("en", "en", runs),
        ("ja", "ja", runs),
        ("blocked", "en", [record("pq8")]),
    ):
        frame = to_frame(records)
        config = RunConfig(report=ReportConfig(language=language), price=PRICES)
        (folder / f"{name}.html").write_text(
            brief.page(frame, score_table(frame, 1.0), [], [], config), encoding="utf-8"
        )
    return {path.stem: path for path in folder.glob("*.html")}


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield the page that the test's parameters name (language, width); it must neither complain nor ask for anything."""
    name, width = getattr(request, "param", ("en", 1100))
    shown = browser.new_page(viewport={"width": width, "height": 800})
    complaints: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on(
        "request",
        lambda asked: complaints.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None,
    )
    shown.goto(pages[name].as_uri())
    yield shown
    shown.close()
    assert not complaints


def choose(page: Any, tasks: list[str], tolerance: float) -> str:
    """Return the answer's text after choosing the tasks that matter and the tolerated loss."""
    for name in ("mrpc", "rte"):
        page.get_by_label(name, exact=True).set_checked(name in tasks)
    page.locator("#tolerance").fill(str(tolerance))
    return str(page.locator("#answer").inner_text())


def test_the_recommendation_follows_the_reader(opened: Any) -> None:
    assert "with pq f=48 Q=60." in opened.locator("#head").inner_text()
    assert "with pq f=16 Q=60." in choose(opened, ["mrpc"], 1)
    assert opened.locator(".candidates .label").first.inner_text() == "pq f=16 Q=60"
    assert "on the tasks that matter to us (mrpc)" in opened.locator("#phrases").inner_text().lower()
    assert "(mrpc)" in opened.locator("#rule").inner_text()
    assert "No configuration measured stays within 0.00 points." in choose(opened, ["mrpc"], 0)
    assert "No answer" in choose(opened, [], 1)


def test_the_script_answers_as_python_does(opened: Any) -> None:
    frame = to_frame(golden())
    about = decision.subject(score_table(frame, 1.0), ReportConfig())
    for tasks, tolerance in itertools.product(
        (["mrpc"], ["rte"], ["mrpc", "rte"]), (0.4, 0.45, 2.4, 5.85, 8, 10)
    ):
        answer = choose(opened, tasks, tolerance)
        matter = [place for place, column in enumerate(about.columns) if column["task"] in tasks]
        ranked = decision.rank(about.options, matter, tolerance)
        labels = [about.options[verdict.place]["row"]["configuration"] for verdict in ranked[:3]]
        assert (f"with {labels[0]}." in answer) == ranked[0].holds, answer
        assert opened.locator(".candidates .label").all_inner_texts() == labels


def test_choosing_back_and_forth_shows_what_was_written(opened: Any) -> None:
    before = opened.locator("main").inner_text(), opened.locator("#chart").inner_html()
    choose(opened, ["rte"], 7)
    assert opened.locator("main").inner_text() != before[0]
    choose(opened, ["mrpc", "rte"], 1)
    assert opened.locator("main").inner_text() == before[0]
    ends = [
        re.findall(r'<g id="front"><path d="M ([\d.]+) ', chart)
        for chart in (before[1], opened.locator("#chart").inner_html())
    ]
    assert ends[0] == ends[1] and ends[0]


def test_pointing_and_arrow_keys_read_a_configuration(opened: Any) -> None:
    readout = opened.locator("#readout")
    opened.locator("#points .candidate").first.hover()
    assert re.search(r"f=\d+ Q=\d+: .*smaller\), mean score \d", readout.inner_text())
    opened.locator("#points").focus()
    seen = set()
    for _ in range(5):
        opened.keyboard.press("ArrowRight")
        seen.add(readout.inner_text())
    assert len(seen) == 5 and any(text.startswith("Dense: 46.9") for text in seen)


def test_the_keyboard_alone_changes_the_limits(opened: Any) -> None:
    opened.keyboard.press("Tab")
    opened.keyboard.press("Tab")
    opened.keyboard.press("Space")
    assert "with pq f=16 Q=60." in opened.locator("#head").inner_text()  # rte no longer matters
    opened.keyboard.press("Tab")
    opened.keyboard.press("Home")
    assert "stays within 0.00 points" in opened.locator("#head").inner_text()


@pytest.mark.parametrize("opened", [("en", 380), ("ja", 380), ("blocked", 380)], indirect=True)
def test_a_narrow_screen_needs_no_sideways_scrolling_and_axe_finds_nothing_serious(opened: Any) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed (extra dev)"
    )
    assert opened.evaluate("document.documentElement.scrollWidth") == 380
    found = axe.Axe().run(opened).response["violations"]
    assert [
        (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
    ] == []


# The width of A4 without margins, in CSS pixels.
@pytest.mark.parametrize("opened", [("en", 688), ("ja", 688)], indirect=True)
def test_it_prints_to_a4_without_a_cut(opened: Any) -> None:
    opened.emulate_media(media="print")
    too_wide = "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > 688.5).map((e) => e.outerHTML.slice(0, 80))"
    assert opened.evaluate(too_wide) == []
    assert not opened.locator("#controls").is_visible() and opened.locator("#phrases").is_visible()
    printed = opened.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 4
    sheets = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)", printed)
    assert sheets and all((round(float(x)), round(float(y))) == (595, 842) for x, y in sheets)  # points


def test_without_scripts_the_page_is_complete(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(pages["en"].as_uri())
    assert not shown.locator("#controls").is_visible() and shown.locator("#chart").is_visible()
    assert "with pq f=48 Q=60." in shown.locator("main").inner_text()
    context.close()
