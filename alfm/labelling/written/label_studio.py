"""A batch as tasks for Label Studio, with the model's suggestions, and the labelling configuration that fits them."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from alfm.errors import UserError
from alfm.files import replacing
from alfm.labelling.items import Items
from alfm.labelling.label_files.label_studio import FROM_NAME
from alfm.labelling.status import Item
from alfm.labelling.written.asked import Asked, cannot_write, only_ours, path_of

_BEGINS = b'[\n{"data": {"alfm_id": '
_MADE = "<!-- made by alfm: paste it under Settings, Labeling Interface, Code -->"
_NO_XML = re.compile("[\0-\b\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_TAGS = {
    "image": '<Image name="image" value="$image" zoom="true"/>',
    "audio": '<Audio name="audio" value="$audio"/>',
    "text": '<Text name="text" value="$text" valueType="text"/>',
}


class Server:
    """Where a server of Label Studio finds the files of a pool: under an address, or as local files of its machine.

    folder: what its document root must be; None where no local file is named.
    """

    def __init__(self, paths: Sequence[str], url_prefix: str | None) -> None:
        self.url_prefix = url_prefix
        below = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else None
        self._below = below
        self.folder = None if below is None or url_prefix is not None else os.path.dirname(below)

    def address(self, path: str) -> str:
        """The address of a file: below the prefix by its path in the pool, else as a local file."""
        if self.url_prefix is not None:
            return f"{self.url_prefix.rstrip('/')}/{_quoted(os.path.relpath(path, self._below))}"
        return f"/data/local-files/?d={_quoted(os.path.relpath(path, self.folder))}"

    @property
    def said(self) -> str | None:
        """What must be set so that the server shows local files; None where nothing must."""
        if self.folder is None:
            return None
        return (
            "Label Studio shows these files when it is started with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={self.folder}, and its project has {self._below} as a source "
            "storage (Local files)."
        )


def write_tasks(file: Path, asked: Asked, items: Items, server: Server, model_version: str) -> None:
    """Tasks in asking order. `UserError` for a file that is not ours."""
    only_ours(file, lambda start: start.startswith(_BEGINS) or start == b"[]\n")
    try:
        with replacing(file) as handle:
            for number, item in enumerate(asked.items):
                task = _task(asked, items, item, server, model_version)
                handle.write((b",\n" if number else b"[\n") + json.dumps(task).encode())
            handle.write(b"\n]\n" if asked.items else b"[]\n")
    except OSError as error:
        raise cannot_write(file, error) from error


def write_config(file: Path, classes: Sequence[str], items: Items) -> None:
    """The labelling configuration. `UserError` where a class's name cannot stand in XML, or the file is not ours."""
    only_ours(file, lambda start: start.startswith(_MADE.encode()))
    kind = kind_of(items)
    choices = []
    for number, name in enumerate(classes, start=1):
        if _NO_XML.search(name):
            raise UserError(f"The class {name!r} has a character that Label Studio cannot be given: rename it.")
        value = quoteattr(name, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
        hotkey = f' hotkey="{number}"' if number < 10 else ""
        choices.append(f"    <Choice value={value}{hotkey}/>\n")
    text = (
        f'{_MADE}\n<View>\n  {_TAGS[kind]}\n  <Choices name="{FROM_NAME}" toName="{kind}" choice="single">\n'
        f"{''.join(choices)}  </Choices>\n</View>\n"
    )
    try:
        with replacing(file) as handle:
            handle.write(text.encode())
    except OSError as error:
        raise cannot_write(file, error) from error


def kind_of(items: Items) -> str:
    """What a task shows: items that cannot be shown are labelled by their ids, as texts."""
    return items.modality if items.modality in ("image", "audio") and items.why_unseen is None else "text"


def _task(asked: Asked, items: Items, item: Item, server: Server, model_version: str) -> dict[str, Any]:
    kind = kind_of(items)
    data = {"alfm_id": item.id, kind: _shown(asked, items, item, server, kind)}
    predictions = []
    if item.suggestion is not None:
        value = {"choices": [item.suggestion]}
        result = {"from_name": FROM_NAME, "to_name": kind, "type": "choices", "value": value}
        score = min(max(float(item.confidence or 0.0), 0.0), 1.0)
        predictions = [{"model_version": model_version, "score": round(score, 6), "result": [result]}]
    return {"data": data, "predictions": predictions, "meta": {"round": asked.round, "label_set": asked.label_set}}


def _shown(asked: Asked, items: Items, item: Item, server: Server, kind: str) -> str:
    if kind == "text":
        return (items.text(item.row) if items.modality == "text" else None) or item.id
    if (path := path_of(items, item.row)) is not None:
        return server.address(path)
    try:
        raw, media = items.file_bytes(item.row)  # in an archive or a data set's own file
    except UserError:  # gone: Label Studio says that it cannot show it
        return item.id
    return f"data:{media};base64,{base64.b64encode(raw).decode()}"


def _quoted(path: str) -> str:
    return quote(os.fsencode(path.replace(os.sep, "/")), safe="/")
