"""The decision brief in a real headless browser: point, choose, type, print; as its script answers, so does Python."""

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report import brief
from bench.report.breakdown import breakdown_table
from bench.report.runs import to_frame
from bench.report.scores import score_table, sections
from bench.settings.schema import ReportConfig, RunConfig
from bench.store import Record
from tests.report.factory import record, xnli
from tests.report.test_brief import PRICES, golden, standard

RUNS = [*golden(batch1=12.0, batch32=64.0), *standard()]

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
    for name, language, records in (
        ("en", "en", RUNS),
        ("ja", "ja", RUNS),
        ("spoken", "en", xnli()),
        ("blocked", "en", [record("pq8")]),
    ):
        (folder / f"{name}.html").write_text(written(records, language=language), encoding="utf-8")
    return {path.stem: path for path in folder.glob("*.html")}


def written(records: list[Record], **asked: Any) -> str:
    """Return the page that Python writes."""
    frame = to_frame(records)
    config = RunConfig(report=ReportConfig(**asked), price=PRICES)
    spoken = sections(breakdown_table(frame, 1.0))
    return brief.page(frame, score_table(frame, 1.0), [], [], config, spoken)


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
    body = opened.locator("#body")
    assert "is called pq f=48 Q=60;" in body.inner_text()
    assert "is called pq f=16 Q=60;" in choose(opened, ["mrpc"], 1)
    assert opened.locator(".candidates .label").all_inner_texts()[0] == "pq f=16 Q=60"
    assert "on any of these: mrpc?" in opened.locator("#rule").inner_text()
    assert "Nothing that was measured stays within 0.00 points." in choose(opened, ["mrpc"], 0)
    assert "We would keep today's model" in opened.locator("#advice").inner_text()
    assert "No answer" in choose(opened, [], 1)


@pytest.mark.parametrize("language", brief.LANGUAGES)
def test_the_script_writes_what_python_writes(
    browser: Any, pages: dict[str, Path], tmp_path: Path, language: str
) -> None:
    page, other = browser.new_page(), browser.new_page()
    page.goto(pages[language].as_uri())
    choices = itertools.product((["mrpc"], ["rte"], ["mrpc", "rte"]), (0.4, 0.45, 2.4, 5.85, 8))
    for tasks, tolerance in choices:
        choose(page, tasks, tolerance)
        asked = written(RUNS, language=language, tasks=tasks, tolerated_loss=tolerance)
        (tmp_path / "asked.html").write_text(asked, encoding="utf-8")
        other.goto((tmp_path / "asked.html").as_uri())
        for part in (
            "header",
            "#answer",
            "#advice",
            ".candidates",
            "table >> nth=0",
            "table >> nth=1",
            "#levels",
        ):
            shown, wanted = (one.locator(part).first.text_content() for one in (page, other))
            assert shown.split() == wanted.split(), (part, tasks, tolerance)
        for part in ("#points use.front", "#points use.partial", "#points use.candidate"):
            places = [
                one.locator(part).evaluate_all("all => all.map((e) => e.dataset.place)")
                for one in (page, other)
            ]
            assert places[0] == places[1], (part, tasks, tolerance)
    page.close()
    other.close()


@pytest.mark.parametrize("opened", [("spoken", 1100)], indirect=True)
def test_a_reader_chooses_the_languages_that_matter(opened: Any) -> None:
    assert "on any of these: 15 languages?" in opened.locator("#rule").inner_text()
    for box in opened.locator("fieldset input").all():
        box.uncheck()
    for name in ("English", "French"):
        opened.get_by_label(name, exact=True).check()
    assert "on any of these: English, French?" in opened.locator("#rule").inner_text()
    assert "is called pq f=48 Q=60;" in opened.locator("#body").inner_text()


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
    assert len(seen) == 5 and any(text.startswith("Today: model 90.4") for text in seen)


def test_the_keyboard_alone_changes_the_limits(opened: Any) -> None:
    opened.keyboard.press("Tab")
    opened.keyboard.press("Tab")
    opened.keyboard.press("Space")
    assert "is called pq f=16 Q=60;" in opened.locator("#body").inner_text()  # rte no longer matters
    opened.keyboard.press("Tab")
    opened.keyboard.press("Home")
    assert "stays within 0.00 points" in opened.locator("#head").inner_text()


@pytest.mark.parametrize(
    "opened", [("en", 380), ("ja", 380), ("spoken", 380), ("blocked", 380)], indirect=True
)
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
    assert not opened.locator("#controls").is_visible() and opened.locator("#advice").is_visible()
    printed = opened.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 4
    sheets = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)", printed)
    assert sheets and all((round(float(x)), round(float(y))) == (595, 842) for x, y in sheets)  # points


def test_without_scripts_the_page_is_complete(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(pages["en"].as_uri())
    assert not shown.locator("#controls").is_visible() and shown.locator("#chart").is_visible()
    assert "is called pq f=48 Q=60;" in shown.locator("main").inner_text()
    context.close()
