"""A batch as one page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
import wave
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from label_pools import FakeItems
from PIL import Image

from alfm.errors import UserError
from alfm.labelling.items import Items
from alfm.labelling.status import Item
from alfm.labelling.written.asked import Asked
from alfm.labelling.written.contact_sheet import write_sheet


class Page(HTMLParser):
    """What a browser makes of it: tags with attributes, and the text of each item."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cards: list[str] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "li":
            self.cards.append("")

    def handle_data(self, data):
        if self.cards:
            self.cards[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def sheet(folder: Path, items, classes=("cat",), suggestion: str | None = "cat") -> Page:
    asked = [Item(row, item, None, None, suggestion, 0.731) for row, item in enumerate(items.ids)]
    write_sheet(folder / "next.html", Asked(asked, 2, "abc123", list(classes)), items)
    return Page(folder / "next.html")


def pool(write_cache, folder: Path, names: list[str], modality: str) -> Items:
    config = {"_target_": "alfm.datasets.folder.folder", "root": str(folder / "pool"), "modality": modality}
    return Items.open([write_cache(names, config, modality=modality)], ["train"])


def test_nothing_that_is_not_ours_is_markup(tmp_path):
    hostile = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "\u202egnp.exe", "a\0b", "</style><b>"]
    items = FakeItems(['<b onclick="x">id</b>', *map(str, range(1, 5))], hostile, modality="text")
    page = sheet(tmp_path, items, ["<i>neg</i>"], "<i>neg</i>")
    assert {name for name, _ in page.tags} <= set(
        ["html", "head", "meta", "title", "style", "body", "header", "h1", "p", "code", "ol", "li", "div", "span"]
    )
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "<script>alert(1)</script>" in page.cards[0] and '<b onclick="x">id</b>' in page.cards[0]
    assert "<i>neg</i>" in page.cards[0] and "73% sure" in page.cards[0]
    assert "\u202e" not in page.source and "\0" not in page.source


def test_the_policy_of_the_page_allows_its_own_style_and_data_alone(tmp_path):
    page = sheet(tmp_path, FakeItems(["a"], ["text"], modality="text"))
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)[1]
    mark = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;") and f"'sha256-{mark}'" in policy
    assert "unsafe" not in policy and "http:" not in page.source and "https:" not in page.source


def test_images_are_thumbnails_in_the_page_and_what_is_gone_is_named(tmp_path, write_cache):
    (tmp_path / "pool").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (900, 600), "red").save(tmp_path / "pool" / name)
    items = pool(write_cache, tmp_path, ["a.png", "b.png", "c.png"], "image")
    (tmp_path / "pool" / "b.png").unlink()
    (tmp_path / "pool" / "c.png").write_text("<svg onload=alert(1)>")
    page = sheet(tmp_path, items, suggestion=None)
    (only,) = page.all("img")
    kind, _, raw = only["src"].partition(",")
    assert kind == "data:image/jpeg;base64" and max(Image.open(BytesIO(base64.b64decode(raw))).size) == 256
    assert "b.png" in page.cards[1] and page.source.count('class="gone"') == 2 and "svg" not in page.source


def test_recordings_have_players(tmp_path, write_cache):
    (tmp_path / "pool").mkdir()
    with wave.open(str(tmp_path / "pool" / "a.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
        file.writeframes(bytes(1600))
    page = sheet(tmp_path, pool(write_cache, tmp_path, ["a.wav"], "audio"))
    (only,) = page.all("audio")
    assert only["src"].startswith("data:audio/") and "controls" in only


def test_items_that_cannot_be_shown_are_their_ids(tmp_path):
    page = sheet(tmp_path, FakeItems(["a", "b"], why_unseen="Nobody knows <where>."))
    assert "Nobody knows &lt;where&gt;." in page.source and len(page.cards) == 2 and not page.all("img")


def test_a_page_of_somebody_else_stays(tmp_path):
    (tmp_path / "next.html").write_text("<p>mine")
    with pytest.raises(UserError, match="was not written by this command"):
        sheet(tmp_path, FakeItems(["a"]))
    assert (tmp_path / "next.html").read_text() == "<p>mine"
