"""Labels in a table of text: two columns with or without a header, our own `next.csv` filled in, exports."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice, repeat

from alfm.datasets.csv_rows import find_columns, open_binary, read_csv
from alfm.datasets.files import find_encoding
from alfm.datasets.names import same_name
from alfm.errors import UserError
from alfm.labelling.formulas import unguarded
from alfm.labelling.label_files.label_studio import annotator_name, class_in_cell
from alfm.labelling.label_files.matching import Keys, Matcher
from alfm.labelling.label_files.told import Gathering, LabelFile, shown

OWN_COLUMNS = ("alfm_id",)
ID_COLUMNS = ("id", "item", "key", "item_id")
NAME_COLUMNS = ("path", "filename", "file_name", "file", "image", "audio", "image_path", "filepath")
TEXT_COLUMNS = ("text", "sentence")
LABEL_COLUMNS = ("label", "class", "category", "choice", "labels", "target")
ANNOTATOR_COLUMNS = ("annotator", "by")
NEXT_COLUMN = "label_set"
"""Only a batch that we wrote has it."""
STUDIO_COLUMN = "annotation_id"
"""Only exports of Label Studio have it: their `id` is a number of their own."""
_KEYS = (*OWN_COLUMNS, *ID_COLUMNS, *NAME_COLUMNS, *TEXT_COLUMNS)
PREDICTIONS = ("id", "label", "confidence", "by")
"""What `alfm.predict` writes: most of its labels are the model's."""
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LOOKED_AT = 200
_HEADER = "give it a first line such as id,label"


@dataclass(frozen=True)
class _Layout:
    """How a table is to be read. columns: their names, where the file has no line of them."""

    separator: str
    header: list[str]
    has_header: bool

    def first(self, names: Sequence[str]) -> str | None:
        """The column of the first of these names that is there, as the file spells it."""
        spelt = {same_name(name).strip().lower(): name for name in reversed(self.header)}
        return next((spelt[name] for name in names if name in spelt), None)


def read(source: str, matcher: Matcher, classes: Collection[str]) -> LabelFile:
    """The labels of a table. Columns are found by their names, or, with two columns and no header, by which one holds
    items of the pool. `UserError` for a file that can be read in two ways, or in none."""
    encoding = _encoding(source)
    layout = _layout(source, encoding, matcher, classes)
    if layout.has_header and tuple(layout.header) == PREDICTIONS:
        raise UserError(
            f"{source} holds predictions, most of them the model's and nobody's labels: to take some as labels, put "
            "them into a table of the columns id,label"
        )
    said = Gathering(source, matcher, classes, last_word=False)
    if encoding == "cp1252":
        said.file.notes.append(f"{source} is not UTF-8: read as Windows-1252")
    ours, studio = layout.first([NEXT_COLUMN]), layout.first([STUDIO_COLUMN])
    own = layout.first([*OWN_COLUMNS, *ID_COLUMNS] if ours else OWN_COLUMNS)
    roles: dict[str, str | None] = {
        "own": own,
        "id": None if ours or studio else layout.first(ID_COLUMNS),
        "name": layout.first(NAME_COLUMNS),
        "text": layout.first(TEXT_COLUMNS),
        "label": layout.first(LABEL_COLUMNS),
        "annotator": layout.first(ANNOTATOR_COLUMNS),
        "when": layout.first(["updated_at"]) if studio else None,
    }
    if not layout.has_header:
        roles |= dict.fromkeys(("id", "name", "text"), "any")
    used = {role: column for role, column in roles.items() if column is not None}
    wanted = list(dict.fromkeys(used.values()))
    try:
        columns = None if layout.has_header else layout.header
        table = read_csv(source, wanted, layout.separator, columns, "quoted", encoding)
    except UserError as error:
        raise UserError(_plainly(str(error))) from error
    said.last_word = studio is not None
    said.file.notes += [_plainly(remark) for remark in table.remarks]
    cells = {role: table.cells[column] for role, column in used.items()}
    several = [cells.get(role) or repeat(None) for role in ("own", "id", "name", "text", "annotator", "when")]
    for number, (label, *keys, by, when) in enumerate(zip(cells["label"], *several, strict=False), start=1):
        where = f"row {number}"
        if studio:
            label = class_in_cell(label, f"{source}, {where}")
        annotator = annotator_name(unguarded(by.strip())) if by else None
        if ours and keys[0]:
            keys[0] = unguarded(keys[0])  # as we wrote it, whatever other ids there are
        said.cell(where, Keys(*keys), unguarded(label), annotator, when or "")
    return said.done()


def _layout(source: str, encoding: str, matcher: Matcher, classes: Collection[str]) -> _Layout:
    """The one way in which the first rows make sense; `UserError` where there are two, or none."""
    with open_binary(source) as file:
        start = file.read(1 << 18)
    decoder = codecs.getincrementaldecoder(encoding)()
    text = decoder.decode(start).removeprefix("\ufeff")
    whole = len(start) < 1 << 18
    noted = text[4] if text[:4] == "sep=" and text[5:6] in ("\r", "\n") else None
    if noted is not None:
        text = text.split("\n", 1)[1]
    found: list[_Layout] = []
    refused: list[str] = []
    for separator in [noted] if noted is not None else _SEPARATORS:
        rows = list(islice(_rows(text, separator, whole), _LOOKED_AT))
        if not rows or max(map(len, rows)) < 2:
            continue
        try:
            found.append(_one_layout(source, separator, rows, matcher, classes))
        except UserError as error:
            refused.append(str(error))
    if len(found) > 1:
        names = " and by ".join(_SEPARATORS.get(one.separator, repr(one.separator)) for one in found)
        raise UserError(f"{source} can be read in two ways, cut by {names}: put its texts in quotes")
    if not found:
        raise UserError(
            refused[0]
            if refused
            else f"{source} has no two columns: an item and its label belong on a line, such as a.jpg,cat"
        )
    return found[0]


def _one_layout(
    source: str, separator: str, rows: list[list[str]], matcher: Matcher, classes: Collection[str]
) -> _Layout:
    """Rows that were cut at one separator. `UserError` where they say nothing, or two things."""
    first = rows[0]
    names = [same_name(cell).strip().lower() for cell in first]
    key = next((name for name in _KEYS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    if key is not None and label is not None:
        if len(first) == 2 and matcher.find(_any(first[names.index(key)]))[0] is not None:
            raise UserError(
                f"{source}: {key!r} is an item's id and a column's name, so its first line can be both: put a first "
                "line alfm_id,label before it if it is an item, or call the column alfm_id if it is none"
            )
        find_columns(source, [first[names.index(label)]], first)  # twice: refused
        return _Layout(separator, first, True)
    if key is not None or label is not None:
        there = ", ".join(shown(name) for name in first[:8])
        missing = f"label among its columns {there}: name the one that holds the class label"
        if key is None:
            missing = f"id among its columns {there}: name the one that holds the item's id, path or text so"
        raise UserError(f"{source} has no {missing}")
    if any(len(row) != 2 for row in rows):
        raise UserError(f"{source} has {max(map(len, rows))} columns and no line of names: {_HEADER}")
    return _Layout(separator, _headless(source, rows, matcher, classes), False)


def _headless(source: str, rows: list[list[str]], matcher: Matcher, classes: Collection[str]) -> list[str]:
    """Names for two columns that have none. `UserError` where both may hold the items, or names may stand first."""
    hits = [[matcher.find(_any(row[place]))[0] is not None for row in rows] for place in (0, 1)]
    if classes:  # a column of class names is the labels', even where these are ids as well
        named = [[row[place].strip() in classes for row in rows] for place in (0, 1)]
        for place in (0, 1):
            if all(named[1 - place]) and not all(named[place]):
                hits[1 - place] = [False]
    if not any(hits[0]) and not any(hits[1]):
        raise UserError(
            f"{source}: neither of its two columns holds ids of this pool, such as "
            f"{shown(matcher.items.ids[0]) if matcher.items.ids else 'none'}; with other keys, {_HEADER}"
        )
    if any(hits[0]) and any(hits[1]):
        raise UserError(f"{source}: both of its columns hold ids of this pool, so either may be the labels: {_HEADER}")
    place = 0 if any(hits[0]) else 1
    labels = {row[1 - place].strip() for row in rows[1:]}
    if not hits[place][0] and rows[0][1 - place].strip() not in labels | set(classes):
        raise UserError(
            f"{source}: its first line, {shown(','.join(rows[0]))}, may be names of columns or an item that is not in "
            f"the pool: {_HEADER}"
        )
    return ["any", "label"] if place == 0 else ["label", "any"]


def _any(cell: str) -> Keys:
    return Keys(id=cell, name=cell, text=cell)


def _rows(text: str, separator: str, whole: bool) -> list[list[str]]:
    """The rows of a piece of a table, the last one left out where it is cut."""
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(map(str.strip, row))]
    return rows if whole else rows[:-1]


def _encoding(source: str) -> str:
    """UTF-8 (or what a mark says) where the whole file is that, else Windows-1252; `UserError` for neither."""
    with open_binary(source) as file:
        start = file.read(4096)
    encoding = find_encoding(None, start[:4])
    if encoding == "utf-8-sig" and b"\0" in start.split(b"\n")[0]:
        raise UserError(f"{source} holds NUL characters: save it as CSV in UTF-8")
    if start[:2] == b"PK":
        raise UserError(f"{source} is a spreadsheet's own file: save the sheet as CSV in UTF-8")
    for guess in (encoding, "cp1252"):
        decoder = codecs.getincrementaldecoder(guess)()
        try:
            with open_binary(source) as file:
                while piece := file.read(1 << 20):
                    decoder.decode(piece)
                decoder.decode(b"", final=True)
        except UnicodeError:
            continue
        return guess
    raise UserError(f"{source} is neither UTF-8 nor Windows-1252 text: save it as CSV in UTF-8")


def _plainly(sentence: str) -> str:
    """A sentence about a table of a data set, without settings that a file of labels does not have."""
    return sentence.split("; if quotes belong")[0].replace("dataset.columns", "its first row")
