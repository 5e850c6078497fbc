"""A text table of which nobody says how it was written: comma, semicolon or tab, UTF-8 or an old Windows code page."""

from __future__ import annotations

from collections.abc import Sequence
from csv import reader

from alfm.datasets.csv_rows import Columns, open_binary, read_csv
from alfm.datasets.files import find_encoding
from alfm.datasets.names import same_name
from alfm.errors import UserError

_SEPARATORS = (",", ";", "\t", "|")


def how_written(source: str) -> tuple[str, str | None, list[str]]:
    """(encoding, separator, names of the columns) of a table with a header; the separator is None where the file's
    first line or its ending says it. `UserError` for a file that is not there, is empty or no text."""
    try:
        with open_binary(source) as file:
            encoding = find_encoding(None, file.read(4))
        if encoding == "utf-8-sig" and not _is_utf8(source):
            encoding = "cp1252"
        with open_binary(source) as file:
            lines = [line for line in (file.readline() for _ in range(3)) if line.strip()]
    except (OSError, EOFError) as error:
        raise UserError(f"{source}: {getattr(error, 'strerror', None) or error}.") from error
    if encoding not in ("utf-8-sig", "cp1252"):  # two or four bytes a character: lines cannot be cut before decoding
        with open_binary(source) as file:
            lines = [line.encode() for line in file.read(1 << 16).decode(encoding, "replace").splitlines()[:3]]
        text = [line.decode() for line in lines]
    else:
        text = [line.decode(encoding, "replace") for line in lines]
    if text and text[0].replace("\ufeff", "").startswith("sep="):  # as spreadsheets tell each other
        separator = text[0].replace("\ufeff", "")[4:5]
        return encoding, None, _fields(text[1], separator) if len(text) > 1 else []
    if not text:
        raise UserError(f"{source} is empty: a header and rows are needed.")
    header = text[0]
    separator = max(_SEPARATORS, key=lambda each: (len(_fields(header, each)), -_SEPARATORS.index(each)))
    return encoding, separator, _fields(header, separator)


def read_any_csv(source: str, wanted: Sequence[str]) -> Columns:
    """The wanted columns as text: see `read_csv`, which is told how the table is written."""
    encoding, separator, _ = how_written(source)
    given = None if encoding == "utf-8-sig" else encoding
    return read_csv(source, list(wanted), separator, None, "auto", given)


def _fields(line: str, separator: str) -> list[str]:
    line = same_name(line).replace("\ufeff", "").rstrip("\r\n")
    return [field.strip() for field in next(reader([line], delimiter=separator), [])]


def _is_utf8(source: str) -> bool:
    try:
        with open_binary(source) as file:
            for line in file:
                line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
