"""A batch as JSON lines that Prodigy (`choice`) and doccano load. Suggestions stand in `meta`: they are no answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alfm.files import replacing
from alfm.labelling.items import Items
from alfm.labelling.written.asked import Asked, cannot_write, only_ours, path_of
from alfm.labelling.written.label_studio import Server, kind_of

_BEGINS = b'{"meta": {"alfm_id": '


def write_lines(file: Path, asked: Asked, items: Items, server: Server) -> None:
    """In asking order. `UserError` for a file that is not ours."""
    only_ours(file, lambda start: start.startswith(_BEGINS) and b'"answer"' not in start.split(b"\n")[0])
    kind = kind_of(items)
    options = [{"id": name, "text": name} for name in asked.classes]
    try:
        with replacing(file) as handle:
            for item in asked.items:
                meta: dict[str, Any] = {"alfm_id": item.id, "round": asked.round, "label_set": asked.label_set}
                if item.suggestion is not None:
                    meta |= {"suggestion": item.suggestion, "confidence": round(float(item.confidence or 0), 4)}
                line: dict[str, Any] = {"meta": meta}
                path = path_of(items, item.row)
                if kind == "text":
                    line["text"] = (items.text(item.row) if items.modality == "text" else None) or item.id
                elif path is not None:
                    line[kind] = path if server.url_prefix is None else server.address(path)
                else:
                    line["text"] = item.id
                handle.write(json.dumps(line | {"options": options}).encode() + b"\n")
    except OSError as error:
        raise cannot_write(file, error) from error
