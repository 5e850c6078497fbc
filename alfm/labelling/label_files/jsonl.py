"""Labels in JSON: one object per line (Prodigy, doccano, own programs), a list, or an export of Label Studio.

An object names its item by `alfm_id` (also in `meta`), which we wrote; else by `id`, `filename`, or the text, image or
audio it shows. It names its class by `label`, `labels` or Prodigy's `accept`, and `answer` says how that is meant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from alfm.datasets.csv_rows import open_binary
from alfm.datasets.files import find_encoding
from alfm.errors import UserError
from alfm.labelling import strict_json
from alfm.labelling.label_files import label_studio
from alfm.labelling.label_files.label_studio import annotator_name
from alfm.labelling.label_files.matching import Keys, Matcher
from alfm.labelling.label_files.told import Gathering, LabelFile, class_of

_NAMES = ("filename", "file_name", "path", "file", "image", "audio")
_ANNOTATORS = ("annotator", "_annotator_id", "_session_id", "by")


def read(source: str, matcher: Matcher, classes: Collection[str]) -> LabelFile:
    """The labels of a JSON file; the later word of an annotator on an item stands. `UserError` for what is no JSON,
    and for several labels of one item."""
    with open_binary(source) as file:
        start = file.read(4096)
    encoding = find_encoding(None, start[:4])
    try:
        begins = start.decode(encoding, "ignore").lstrip("\ufeff \t\r\n")
        if begins.startswith("["):
            records = _whole(source, encoding)
            if label_studio.is_raw(records):
                return label_studio.read_raw(source, records, matcher, classes)
            if label_studio.is_min(records):
                return label_studio.read_min(source, records, matcher, classes)
            return _read(source, ((f"entry {n}", one) for n, one in enumerate(records, 1)), matcher, classes)
        return _read(source, _lines(source, encoding), matcher, classes)
    except UnicodeError as error:
        raise UserError(f"{source} is not UTF-8 ({error.reason}): save it in UTF-8, as JSON is") from error  # type: ignore[attr-defined]


def _read(source: str, records: Iterator[tuple[str, Any]], matcher: Matcher, classes: Collection[str]) -> LabelFile:
    said = Gathering(source, matcher, classes, last_word=True)
    for where, record in records:
        if not isinstance(record, dict):
            said.leave_out(where, str(record)[:40], "it is no JSON object")
            continue
        if "annotations" in record and isinstance(record.get("data"), dict):
            raise UserError(f"{source}, {where} is a task of Label Studio: export the whole project as JSON")
        keys, there = _keys(record), f"{source}, {where}"
        annotator = next((name for key in _ANNOTATORS if (name := annotator_name(record.get(key)))), None)
        answer = record.get("answer", "accept")
        if answer == "ignore" or record.get("skip") is True:
            said.add(where, keys, "skip", None, annotator)
        elif answer == "reject":
            rejected = _rejected(record, there)
            for label in rejected:
                said.add(where, keys, "reject", label, annotator)
            if not rejected:
                said.count("rejections that name no class")
        elif answer != "accept":
            said.leave_out(where, keys.said, f"its answer is {str(answer)[:40]!r} (accept, reject or ignore is needed)")
        elif (chosen := _label(record, there)) is None:
            said.count("without a label")
        else:
            said.add(where, keys, "label", chosen, annotator)
    return said.done()


def _keys(record: Mapping[str, Any]) -> Keys:
    meta = record["meta"] if isinstance(record.get("meta"), dict) else {}
    own = record.get("alfm_id", meta.get("alfm_id"))
    both = {**meta, **record}
    name = next((both[key] for key in _NAMES if isinstance(both.get(key), str) and both[key][:5] != "data:"), None)
    other, text = record.get("id", meta.get("id")), record.get("text")
    return Keys(
        str(own) if isinstance(own, str | int) else None,
        str(other) if isinstance(other, str | int) else None,
        name,
        text if isinstance(text, str) else None,
    )


def _label(record: Mapping[str, Any], where: str) -> str | None:
    """Prodigy's choice, else `label`, else `labels` of one."""
    for key in ("accept", "label", "labels"):
        if key in record and (key != "accept" or isinstance(record[key], list)):
            return class_of(record[key], where)
    return None


def _rejected(record: Mapping[str, Any], where: str) -> list[str]:
    """The classes that a rejection rules out: those that were chosen, else the one that was shown."""
    chosen = record.get("accept")
    values: Sequence[Any] = chosen if isinstance(chosen, list) and chosen else [record.get("label")]
    return [label for value in values if (label := class_of(value, where)) is not None]


def _whole(source: str, encoding: str) -> list[Any]:
    with open_binary(source) as file:
        text = file.read().decode(encoding)
    try:
        read = strict_json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is no JSON: {error}") from error
    if not isinstance(read, list):
        raise UserError(f"{source} is no list of JSON objects")
    return read


def _lines(source: str, encoding: str) -> Iterator[tuple[str, Any]]:
    """(where, what) of every line that holds something."""
    import io

    with io.TextIOWrapper(open_binary(source), encoding=encoding, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield f"line {number}", strict_json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{source}, line {number} is no JSON object: {error}") from error
