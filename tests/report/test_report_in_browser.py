"""The report in a real browser, where one is installed: from disk, without a network, narrow, dark, and clicked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import made_up

from alfm.report.__main__ import main
from alfm.report.html import paper

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytest.importorskip("jinja2")
pytest.importorskip("plotly")

LONG = "a strategy with a name that goes on and on for longer than a telephone is wide, as those with options do"
CURVE = "#a-pixels-curves [data-figure] .plot"
COLOURS = "(place) => [...place.querySelectorAll('.js-line')].map((line) => line.style.stroke)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for model in ("pixels", "another"):
        made_up(folder / "logs", {"random": 0.0, "margins": 0.03, LONG: 0.01}, data="a", model=model, seeds=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "ENDINGS", ())
        assert main([str(folder / "logs"), "--html", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """`opened(width, scheme)`: the page; nothing may go wrong in it, and nothing be asked of a network."""
    complaints: list[str] = []
    contexts = []

    def show(width: int = 1400, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text))
        page.on("request", lambda asked: None if asked.url.startswith(("file:", "blob:", "data:"))
                else complaints.append(asked.url))  # fmt: skip
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        page.locator(CURVE).first.scroll_into_view_if_needed()
        page.wait_for_selector(f"{CURVE} .js-line", state="attached")
        return page

    yield show
    for context in contexts:
        context.close()
    assert not complaints


def test_it_opens_from_disk_and_a_click_hides_a_curve(opened: Any) -> None:
    page = opened()
    lines = page.locator(f"{CURVE} .js-line")
    key = page.locator("#a-pixels-curves .key[data-series=margins]")
    before = lines.count()
    key.click()
    assert key.get_attribute("aria-pressed") == "false" and lines.count() == before - 2  # its curve and its interval
    key.click()
    assert lines.count() == before


def test_it_fits_a_telephone(opened: Any) -> None:
    page = opened(400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    widths = "[...document.querySelectorAll('caption span')].map((one) => one.getBoundingClientRect().width)"
    assert max(page.evaluate(widths)) <= 400  # they wrap; their tables may be wider and scroll


def test_figures_follow_the_dark_scheme_and_the_switch(opened: Any) -> None:
    page = opened()
    plot = page.locator(CURVE).first
    light = plot.evaluate(COLOURS)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"(before) => String(({COLOURS})(document.querySelector('{CURVE}'))) !== String(before)",
                           arg=light)  # fmt: skip
    page.locator("[data-theme-is=light]").click()
    page.wait_for_function(f"(before) => String(({COLOURS})(document.querySelector('{CURVE}'))) === String(before)",
                           arg=light)  # fmt: skip
