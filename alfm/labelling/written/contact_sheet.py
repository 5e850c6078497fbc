"""A batch as one page that opens from disk: thumbnails, texts and recordings, all inside it; no script, no other file.

Everything that is not ours is escaped, and the page's own policy forbids what is not in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from alfm.errors import UserError
from alfm.files import replacing
from alfm.labelling.items import Items
from alfm.labelling.status import Item
from alfm.labelling.thumbnails import audio, thumbnail
from alfm.labelling.written.asked import Asked, cannot_write, only_ours

_MADE = '<meta name="generator" content="alfm">'
_HIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""What would not be seen, or would turn the text after it round."""
_LONGEST = 20_000
"""Characters of a text that are shown."""
_LARGEST = 8 << 20
"""Bytes of a recording that are taken in."""
_SIDE = 256
_STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d1d1b; --soft: #666; --line: #ddd; }
@media (prefers-color-scheme: dark) {
  :root { --page: #161618; --card: #222225; --ink: #ececea; --soft: #a5a5a2; --line: #3a3a3e; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header { max-width: 60rem; margin-bottom: 1.25rem; }
h1 { margin: 0 0 .35rem; font-size: 1.35rem; }
p { margin: .2rem 0; color: var(--soft); }
code { font: .9em ui-monospace, monospace; color: var(--ink); overflow-wrap: anywhere; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; min-width: 0;
  display: flex; flex-direction: column; gap: .5rem; break-inside: avoid; }
img { width: 100%; height: 12rem; object-fit: contain; background: var(--page); border-radius: .3rem; }
audio { width: 100%; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 14rem; overflow-y: auto; unicode-bidi: isolate; }
.gone { color: var(--soft); font-style: italic; }
.id { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; unicode-bidi: isolate; }
.guess { display: flex; justify-content: space-between; gap: .5rem; margin-top: auto; font-weight: 600; }
.guess span { overflow-wrap: anywhere; unicode-bidi: isolate; }
.guess .sure { color: var(--soft); font-weight: 400; }
"""


def write_sheet(file: Path, asked: Asked, items: Items) -> None:
    """In asking order. `UserError` for a file that is not ours."""
    only_ours(file, lambda start: _MADE.encode() in start)
    try:
        with replacing(file) as handle:
            for piece in _page(asked, items):
                handle.write(piece.encode())
    except OSError as error:
        raise cannot_write(file, error) from error


def _page(asked: Asked, items: Items) -> Iterator[str]:
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{style}'; form-action 'none'"
    classes = ", ".join(map(_plain, asked.classes)) or "none yet"
    unseen = f"<p>{_plain(items.why_unseen)}</p>\n" if items.why_unseen else ""
    title = f"Round {asked.round}: {len(asked.items)} items to label"
    yield (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{_MADE}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        f"<p>Classes: {classes}</p>\n<p>Write what each is into the column <code>label</code> of "
        f"<code>next.csv</code>, <code>?</code> where it cannot be told. Made from the labels "
        f"<code>{_plain(asked.label_set)}</code>.</p>\n{unseen}</header>\n<ol>\n"
    )
    for number, item in enumerate(asked.items, start=1):
        guess = ""
        if item.suggestion is not None:
            sure = "" if item.confidence is None else f'<span class="sure">{item.confidence:.0%} sure</span>'
            guess = f'<div class="guess"><span>{_plain(item.suggestion)}</span>{sure}</div>\n'
        yield f'<li>\n{_shown(items, item)}<div class="id">{number}. {_plain(item.id)}</div>\n{guess}</li>\n'
    yield "</ol>\n</body>\n</html>\n"


def _shown(items: Items, item: Item) -> str:
    """The item itself; a sentence where it is gone, nothing where items cannot be shown at all."""
    if items.why_unseen is not None or items.modality is None:
        return ""
    try:
        if items.modality == "text":
            text = items.load(item.row)
            cut = f" ... ({len(text):,} characters in all)" if len(text) > _LONGEST else ""
            return f'<div class="text" dir="auto">{_plain(text[:_LONGEST])}{cut}</div>\n'
        if items.modality == "audio":
            raw, media = audio(items, item.row)
            if len(raw) > _LARGEST:
                return f'<div class="gone">A recording of {len(raw) / 2**20:.0f} MB: open the file itself.</div>\n'
            return f'<audio controls preload="metadata" src="{_data(raw, media)}"></audio>\n'
        return f'<img alt="" loading="lazy" src="{_data(thumbnail(items, item.row, _SIDE), "image/jpeg")}">\n'
    except UserError as gone:
        return f'<div class="gone">{_plain(str(gone))}</div>\n'


def _data(raw: bytes, media: str) -> str:
    return f"data:{escape(media)};base64,{base64.b64encode(raw).decode()}"


def _plain(text: str) -> str:
    """A text as HTML shows it, as it is."""
    return escape(_HIDDEN.sub("\ufffd", text))
