"""The page in a real browser, where one is installed: keys, undo, reload, two tabs, and strangers."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from small_pool import CLASSES, SCRIPT, Desks, served

from alfm.labelling.page.desk import Desk

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP evil.example 127.0.0.1",
]  # fmt: skip
MEASURED = "performance.getEntriesByName('key to next item').map((one) => one.duration)"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield running
        running.close()


def _wrong(line: Any, expected: str) -> bool:
    return line.type == "error" and expected not in line.text


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """`opened(url)`: a tab of this test's own browser profile; nothing may go wrong in it but what `expected` says."""
    context = browser.new_context()
    complaints: list[str] = []

    def open_tab(url: str, expected: str = "\0") -> Any:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if _wrong(line, expected) else None)
        page.goto(url)
        return page

    yield open_tab
    context.close()
    assert not [one for one in complaints if "ERR_CONNECTION_REFUSED" not in one]  # the server ends first


def until(page: Any, true: str) -> None:
    """Waits for an expression; Playwright's own waiting evaluates texts in the page, which may not do that."""
    for _ in range(2400):
        if page.evaluate(true):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {true}")


def current(page: Any) -> str:
    """The text on the stage, when there is one."""
    return page.locator("#stage .text").text_content()


def votes(desk: Desk) -> dict[str, str]:
    """Item -> label, as the journal has it."""
    return {item: next(iter(said.values())) for item, said in desk.learner.state.votes.items()}


def settled(page: Any, desk: Desk, count: int) -> None:
    """Waits until so many labels are confirmed."""
    until(page, f"document.getElementById('done').textContent.startsWith('{count} of')")
    for _ in range(2000):
        if len(desk.learner.state.votes) == count:
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"{len(desk.learner.state.votes)} labels instead of {count}")


def test_thirty_labels_by_keyboard_undo_over_items_and_a_reload(make_desk: Desks, opened, capsys):
    desk = make_desk(n=40)
    with served(desk) as url:
        page = opened(url)
        assert "secret" not in page.url
        said = []
        for number in range(30):
            said.append((current(page), CLASSES[number % 3]))
            page.keyboard.press(str(number % 3 + 1))
        settled(page, desk, 30)
        texts = [text for text, _ in said]
        assert len(set(texts)) == 30
        times = page.evaluate(MEASURED)
        by_text = {desk.text(desk.learner.state.rows[item]): label for item, label in votes(desk).items()}
        assert by_text == dict(said)

        for text in reversed(texts[-3:]):  # back over three items, whose labels go
            page.keyboard.press("Backspace" if text != texts[-2] else "Control+z")
            until(page, f"document.querySelector('#stage .text').textContent === {json.dumps(text)}")
        settled(page, desk, 27)
        page.keyboard.press("3")
        settled(page, desk, 28)
        assert current(page) == texts[-2]  # what was undone is asked again

        page.reload()
        page.wait_for_selector("#stage .text")
        settled(page, desk, 28)
        page.keyboard.press("Backspace")  # what was said before the reload can still be taken back
        settled(page, desk, 27)
        assert current(page) == texts[-3]
        with capsys.disabled():
            print(f"\nfrom key to next item, median of {len(times)}: {statistics.median(times):.0f} ms")


def test_the_other_keys(make_desk: Desks, opened):
    desk = make_desk(n=20, classes=None)
    with served(desk) as url:
        page = opened(url)
        first = current(page)
        page.keyboard.press("1")  # there is no class yet
        page.keyboard.type("drizzle")
        page.keyboard.press("Enter")  # a new class
        page.wait_for_selector("#classes button:has-text('drizzle')")
        assert current(page) != first
        page.keyboard.type("Sun")
        page.keyboard.press("Enter")
        settled(page, desk, 2)
        assert sorted(votes(desk).values()) == ["Sun", "drizzle"]
        page.keyboard.type("dri")
        page.keyboard.press("Enter")  # the first that fits
        settled(page, desk, 3)
        page.wait_for_selector("#model:has-text('The model says')")
        suggestion = page.locator("#model b").text_content()
        page.keyboard.press("Enter")
        settled(page, desk, 4)
        assert list(votes(desk).values())[-1] == suggestion
        skipped = current(page)
        page.keyboard.press(" ")
        until(page, "document.getElementById('done').textContent.endsWith('1 skipped')")
        here = current(page)
        page.keyboard.press("ArrowLeft")
        assert current(page) == skipped
        page.keyboard.press("ArrowRight")
        assert current(page) == here
        page.keyboard.press("?")
        assert page.locator("#legend").is_visible()
        page.keyboard.press("1")  # not for the item behind
        page.keyboard.press("Escape")
        assert not page.locator("#legend").is_visible()
        settled(page, desk, 4)


def test_an_answer_that_comes_late_undoes_nothing(make_desk: Desks, opened):
    desk, held = make_desk(n=20), []
    with served(desk) as url:
        page = opened(url)
        current(page)
        hold = lambda route: route.continue_() if held else held.append((route, route.fetch()))  # noqa: E731
        page.route("**/api/items*", hold)
        desk.version += 1  # the page asks how the item on the screen stands
        while not held:
            page.wait_for_timeout(20)
        page.keyboard.press("1")
        settled(page, desk, 1)
        route, answer = held[0]
        route.fulfill(response=answer)  # as it stood before
        page.wait_for_timeout(100)
        page.keyboard.press("ArrowLeft")
        assert "Labelled" in page.locator("#model").text_content()


def test_names_that_objects_have_are_names(make_desk: Desks, opened):
    desk = make_desk(n=20, classes=["constructor", "__proto__"])
    counts = "[...document.querySelectorAll('#balance b')].map((one) => one.textContent).join()"
    with served(desk) as url:
        page = opened(url)
        first = current(page)
        page.locator("#by").fill("toString")
        page.locator("#by").press("Enter")
        until(page, f"{counts} === '0,0'")
        page.keyboard.press("1")
        page.keyboard.press("2")
        settled(page, desk, 2)
        until(page, f"{counts} === '1,1'")
        for count in (1, 0):
            page.keyboard.press("Backspace")
            settled(page, desk, count)
        until(page, f"{counts} === '0,0'")
        assert current(page) == first


def test_keys_of_the_browser_and_of_fields_stay_free(make_desk: Desks, opened):
    with served(make_desk(n=20)) as url:
        page = opened(url)
        before = current(page)
        free = page.evaluate("""() => {
            const press = (on, key, held) => on.dispatchEvent(
                new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...held }));
            const held = [{ ctrlKey: true }, { metaKey: true }, { altKey: true }, { ctrlKey: true, shiftKey: true }];
            const keys = ["1", "Enter", " ", "Backspace", "ArrowLeft", "a", "r", "?"];
            const found = held.flatMap((with_) => keys.map((key) => press(document.body, key, with_)));
            for (const with_ of [{ metaKey: true }, { ctrlKey: true, altKey: true }])
                found.push(press(document.body, "z", with_));
            for (const key of [...keys, "F5", "Tab", "Escape"])
                found.push(press(document.getElementById("by"), key, {}));
            for (const key of ["F5", "F12", "Tab", "Home", "PageDown", "/", "'"])
                found.push(press(document.body, key, {}));
            return found;
        }""")
        assert all(free)
        assert current(page) == before
        page.fill("#by", "1 2")
        page.locator("#by").press("Backspace")
        assert page.input_value("#by") == "1 "


def test_two_tabs_do_not_fight(make_desk: Desks, opened):
    desk = make_desk(n=20)
    with served(desk) as url:
        one, two = opened(url), opened(url, expected="Failed to load resource")
        assert current(one) == current(two)
        two.route("**/api/standing*", lambda route: route.abort())  # it does not hear of the other
        text = current(one)
        one.keyboard.press("1")
        settled(one, desk, 1)
        two.keyboard.press("2")
        two.wait_for_selector("text=changed elsewhere")
        assert current(two) == text
        assert "calm" in two.locator("#model").text_content()
        assert list(votes(desk).values()) == ["calm"]
        two.keyboard.press("2")  # now that it is known, the last word stands
        until(one, "document.querySelector('#balance li:nth-child(2) b').textContent === '1'")
        assert list(votes(desk).values()) == ["rain"]


def test_a_text_with_a_script_is_a_text(make_desk: Desks, opened):
    desk = make_desk(n=60)
    with served(desk) as url:
        page = opened(url)
        page.fill("#words", "document.title")
        page.wait_for_selector(".tile")
        assert page.locator(".tile .face").all_text_contents() == [SCRIPT]
        page.locator(".tile").dblclick()
        page.wait_for_selector("#stage .text")
        assert current(page) == SCRIPT
        page.click("#classes .other >> nth=0")
        page.fill("#typed", SCRIPT)  # and so is the name of a class
        page.keyboard.press("Enter")
        settled(page, desk, 1)
        assert page.locator("#balance span").all_text_contents() == [*CLASSES, SCRIPT]
        assert page.title() == "alfm: label"
        assert page.locator("#one img, #grid img, #balance img").count() == 0


def test_what_cannot_be_stored_is_said_and_taken_back(make_desk: Desks, opened):
    desk = make_desk(n=20)
    with served(desk) as url:
        page = opened(url, expected="Failed to load resource")
        text = current(page)
        refusal = json.dumps({"error": "The disk is full: make room."})
        page.route(
            "**/api/acts", lambda route: route.fulfill(status=400, body=refusal, content_type="application/json")
        )
        page.keyboard.press("1")
        until(page, "document.querySelector('.notice') !== null")
        assert "The disk is full" in page.locator("#notices").text_content()
        until(page, "document.querySelector('#done').textContent.startsWith('0 of')")  # drawn behind the notice
        assert current(page) == text
        page.unroute("**/api/acts")

        sent = []

        def lost(route: Any) -> None:  # stored, and the answer does not arrive
            sent.append(route.request.post_data)
            if len(sent) < 3:
                route.fetch()
                route.abort()
            else:
                route.continue_()

        page.route("**/api/acts", lost)
        page.keyboard.press("2")
        for _ in range(500):  # the first is stored already: what is waited for is the third
            if len(sent) == 3:
                break
            page.wait_for_timeout(20)
        settled(page, desk, 1)
        until(page, "document.querySelectorAll('.notice').length === 1")  # only the refusal is left
        assert len(sent) == 3 and sent[0] == sent[1] == sent[2]
        assert list(votes(desk).values()) == ["rain"]


def test_a_list_that_is_chosen_while_another_is_fetched_is_shown(make_desk: Desks, opened):
    desk = make_desk("image", n=20)
    with served(desk) as url:
        page = opened(url)
        page.click("#view-grid")
        page.wait_for_selector(".tile")
        held: list[Any] = []
        page.route("**/api/items?*", lambda route: route.continue_() if held else held.append(route))
        page.select_option("#which", "unlabelled")
        for _ in range(1000):
            if held:
                break
            page.wait_for_timeout(50)
        page.select_option("#which", "all")
        page.wait_for_timeout(300)  # its list is there, its items wait for the others
        held[0].continue_()
        page.wait_for_selector("#tile-59")


@pytest.mark.parametrize("chosen", ["click", "words", "empty queue"])
def test_a_grid_that_is_chosen_before_the_server_has_answered_is_filled(make_desk: Desks, opened, chosen: str):
    desk = make_desk("image", n=20)
    with served(desk) as url:
        held: list[Any] = []

        def hold(route: Any) -> None:
            if chosen == "empty queue" and not held:  # the first batch is being made yet
                held.append(route.fetch())
                route.fulfill(response=held[0], json=held[0].json() | {"queue": [], "version": 0})
            elif chosen != "empty queue" and not held:
                held.append(route)
            else:
                route.continue_()

        page = opened("about:blank")
        page.route("**/api/standing*", hold)
        page.goto(url)
        if chosen == "words":
            page.fill("#words", ".png")
            page.wait_for_selector("#grid")
        else:
            page.click("#view-grid")
        for _ in range(1000):
            if held:
                break
            page.wait_for_timeout(20)
        assert page.locator(".tile").count() == 0
        if chosen != "empty queue":
            held[0].continue_()
        page.wait_for_selector(".tile")


def test_many_at_once_in_the_grid(make_desk: Desks, opened):
    desk = make_desk("image", n=20)
    with served(desk) as url:
        page = opened(url)
        page.click("#view-grid")
        page.select_option("#which", "unlabelled")
        page.wait_for_selector("#tile-59")
        page.locator("#tile-3").click()
        page.locator("#tile-8").click(modifiers=["Shift"])
        page.locator("#tile-5").click()
        assert page.locator(".tile[aria-selected=true]").count() == 5
        page.keyboard.press("2")
        settled(page, desk, 5)
        assert sorted(votes(desk)) == [f"{row:03}.png" for row in (3, 4, 6, 7, 8)]
        page.locator("#tile-20").click()
        page.click("#like")
        until(page, "document.getElementById('which').value === 'like' && !document.getElementById('tile-20')")
        until(page, "document.querySelectorAll('.tile img').length > 20")
        assert page.locator("#tile-20").count() == 0


def test_strangers(make_desk: Desks, opened):
    with served(make_desk()) as url:
        port = url.split(":")[2].split("/")[0]
        page = opened(f"http://evil.example:{port}/", expected="Failed to load resource")
        assert "not called" in page.content()
        page = opened(url.partition("?")[0], expected="Failed to load resource")  # without the secret
        page.wait_for_selector("#stage:has-text('open the page at the address that the command printed')")
        opened(url).wait_for_selector("#stage .text")
