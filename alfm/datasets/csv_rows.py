"""CSV and its relatives, read strictly: a row that does not fit the header is refused, not moved to other columns."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, BinaryIO, Literal, TextIO, cast

from alfm.datasets.files import find_encoding
from alfm.datasets.names import same_name
from alfm.errors import UserError, nearest_names
from alfm.options import checked

Quoting = Literal["auto", "quoted", "none"]
_END = "\0\1\2"
"""A line after the last one, that is a row of its own unless a quote is still open."""
_PACKED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_SEPARATORS = {",": "','", "\t": "tab", ";": "';'", "|": "'|'", " ": "' '"}
"""Usual ones, and how they are typed."""


@dataclass
class Columns:
    """The wanted columns of a table, and sentences about how they were read."""

    cells: dict[str, list[Any]]
    remarks: list[str] = field(default_factory=list)


@dataclass
class _Reading:
    """A file read in one way. `fault`: why this way cannot be right, in words; rows after it are only counted."""

    cells: list[list[str]]
    rows: int = 0
    fault: str | None = None
    short: list[int] = field(default_factory=list)
    """Lines of rows that end before the last column."""
    misquoted: str | None = None
    """What strict reading stumbles over: text after a closing quote, or a quote that is never closed."""
    unclosed: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every row has all fields, with quotes only around fields."""
        return self.fault is None and not self.short and self.misquoted is None


@checked
def read_csv(
    source: str,
    wanted: Sequence[str],
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quoting: Quoting = "auto",
    encoding: str | None = None,
) -> Columns:
    """The wanted columns of a text table as text, blank lines left out.

    `separator`: one character, or a regular expression (such as `\\s+`; then quotes mean nothing); None is a tab for
    `.tsv`, else a comma. `columns` names the columns of a file without a header. A row with more fields that hold
    something than the header has is an error, and so is one that ends before a wanted column; shorter ones are
    counted. `quoting`: `quoted` (a field may be enclosed in quotes), `none`, or `auto`: where there are quotes both are
    tried, and enclosed fields are taken if the number of rows is the same, or if every row is then whole and without
    them not. `UserError` for everything that does not fit, and where both readings could be meant.
    """
    file = _File(source, wanted, separator, columns, encoding)
    reading = file.read(quoted=quoting != "none" and file.pattern is None)
    if file.pattern is not None and file.has_quotes and quoting != "none":
        raise UserError(
            f"{source} has quotes, and its separator {file.separator!r} is a pattern: say dataset.quoting=none if "
            "quotes belong to the texts, else give a separator of one character"
        )
    remarks: list[str] = []
    if file.has_quotes and quoting == "auto":
        other = file.read(quoted=False)
        if reading.rows != other.rows and not (reading.is_whole and not other.is_whole):
            counts = (
                f"{source} has {reading.rows:,} rows if quotes enclose fields, and {other.rows:,} if they belong to"
            )
            if reading.fault is not None or reading.unclosed:  # then `quoted` would be refused
                raise UserError(f"{counts} the texts: say dataset.quoting=none for the latter, or close the quotes")
            raise UserError(
                f"{counts} the texts: say dataset.quoting=quoted for the former, or dataset.quoting=none for the latter"
            )
        if reading.rows != other.rows:
            remarks.append(
                f"{source}: {reading.rows:,} rows, some with fields in quotes that go over several lines "
                "(dataset.quoting=none takes every line as a row)"
            )
    hint = "; if quotes belong to the texts, say dataset.quoting=none" if file.has_quotes and quoting != "none" else ""
    if reading.fault is not None or reading.unclosed:
        raise UserError(f"{source}{reading.fault or reading.misquoted}{hint}")
    if reading.misquoted is not None:
        remarks.append(f"{source}{reading.misquoted}{hint}")
    if reading.short:
        remarks.append(
            f"{source}, rows with fewer fields than the header: {len(reading.short):,}, the first in line "
            f"{reading.short[0]}; the columns asked for are there"
        )
    return Columns(dict(zip(wanted, reading.cells, strict=True)), remarks)


def find_columns(source: str, wanted: Sequence[str], present: Sequence[str]) -> list[int]:
    """Where the wanted columns stand; names are equal in either Unicode form, without a byte order mark, and without
    spaces at the ends. `UserError` for one that is not there, or there more than once."""
    places = []
    for name in wanted:
        for key in (str, same_name, lambda text: same_name(text).strip()):
            found = [index for index, there in enumerate(present) if key(there) == key(name)]
            if found:
                break
        if len(found) > 1:
            raise UserError(f"{source} has {len(found)} columns {name!r}: rename all but the one that is meant")
        if not found:
            raise UserError(
                f"{source} has no column {name!r}; {nearest_names(name, [_cut(there) for there in present])}"
            )
        places.append(found[0])
    return places


class _Unclosed(csv.Error):
    """The file ends inside a field in quotes."""


class _File:
    """A text table on disk and how it is cut; read as often as needed."""

    def __init__(
        self,
        source: str,
        wanted: Sequence[str],
        separator: str | None,
        columns: Sequence[str] | None,
        encoding: str | None,
    ) -> None:
        self.source, self.wanted = source, wanted
        self.columns = None if columns is None else [str(name) for name in columns]
        with open_binary(source) as file:
            start = file.read(4096)
        self.encoding, self.given = find_encoding(encoding, start[:4]), encoding is not None
        if self.encoding == "utf-8-sig" and b"\0" in start.split(b"\n")[0]:
            likely = "utf-16-be" if start[0] == 0 else "utf-16-le"
            raise UserError(f"{source} begins with NUL characters: it may be dataset.encoding={likely}")
        with open_text(source, self.encoding) as file:
            noted = _spreadsheet_note(file)
        self.skipped = 0 if noted is None else 1
        self.separator = noted if separator is None and noted else _separator(source, separator)
        self.pattern = re.compile(self.separator) if len(self.separator) > 1 else None
        self.has_quotes = False
        self.line = 1
        """In which the row begins that is being read."""

    def read(self, quoted: bool) -> _Reading:
        """One way of reading. `UserError` for a file that is no text in its encoding."""
        csv.field_size_limit(2**31 - 1)  # a text may be long
        strict = self._read(quoted, strict=True)
        if strict.misquoted is None:
            return strict
        loose = self._read(quoted, strict=False)
        loose.misquoted = loose.misquoted or strict.misquoted
        return loose

    def _read(self, quoted: bool, strict: bool) -> _Reading:
        reading = _Reading([[] for _ in self.wanted])
        rows = self._rows(quoted, strict)
        try:
            header = self.columns if self.columns is not None else next(rows, (0, None))[1]
            if header is None:
                raise UserError(f"{self.source} cannot be read as a table: it is empty")
            named = max((index + 1 for index, name in enumerate(header) if name.strip()), default=0)
            try:
                places = self._places(header)
            except UserError as error:
                if quoted:
                    raise
                reading.fault, places = str(error).removeprefix(self.source), []
            for line, row in rows:
                reading.rows += 1
                if reading.fault is None:
                    reading.fault = self._fault(row, line, header, places, named)
                if reading.fault is None:
                    if len(row) < named:
                        reading.short.append(line)
                    for cells, place in zip(reading.cells, places, strict=True):
                        cells.append(row[place])
        except csv.Error as error:
            if not strict and not isinstance(error, _Unclosed):
                raise UserError(f"{self.source} cannot be read as a table from line {self.line}: {error}") from error
            reading.unclosed = not strict
            reading.rows += 1
            what = "is never closed" if reading.unclosed else "that closes a field is followed by more of it"
            reading.misquoted = f", line {self.line}: a quote {what}"
        return reading

    def _places(self, header: list[str]) -> list[int]:
        try:
            return find_columns(self.source, self.wanted, _unlike(header))
        except UserError as error:
            if self.columns is not None:
                raise UserError(f"{error} (of dataset.columns)") from error
            if len(header) == 1 and (found := [s for s in _SEPARATORS if s in header[0] and s != " "]):
                raise UserError(
                    f"{self.source} has one column, {_cut(header[0])!r}: if {found[0]!r} separates its fields, say "
                    f'"dataset.separator={_SEPARATORS[found[0]]}"'
                ) from error
            raise UserError(f"{error}; a table without a header needs 'dataset.columns=[NAME, ...]'") from error

    def _fault(self, row: list[str], line: int, header: list[str], places: list[int], named: int) -> str | None:
        if any(cell.strip() for cell in row[len(header) :]):
            names = ", ".join(map(_cut, header[:6])) + (", ..." if len(header) > 6 else "")
            there = "the header" if self.columns is None else "dataset.columns"
            return (
                f", line {line}: {len(row)} fields, and {there} has {len(header)} ({names}): a field that holds the "
                f"separator {self.separator!r} must stand in quotes, and every column needs a name"
            )
        short = [name for name, place in zip(self.wanted, places, strict=True) if place >= len(row)]
        if short:
            return f", line {line}: the row ends before the column {short[0]!r} ({len(row)} of {named} fields)"
        if row == header and self.columns is not None:
            return f", line {line}: the file has a header of its own: leave out dataset.columns"
        if row == header and len(row) > 1:
            return f", line {line}: the header once more, as in tables that were joined: take that line out"
        return None

    def _rows(self, quoted: bool, strict: bool) -> Iterator[tuple[int, list[str]]]:
        """(the line it begins in, from 1; its fields) of every row; lines with nothing but spaces are left out."""
        with open_text(self.source, self.encoding) as file:
            lines = islice(self._lines(file), self.skipped, None)
            if self.pattern is not None:
                for number, line in enumerate(lines, start=1 + self.skipped):
                    text = line.rstrip("\r\n")
                    if text.strip():
                        yield number, self.pattern.split(text.strip() if self.separator == r"\s+" else text)
                return
            how: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
            reader = csv.reader(chain(lines, [_END]), delimiter=self.separator, quoting=how, strict=strict)
            self.line = 1 + self.skipped
            for row in reader:
                if row == [_END]:
                    return
                if any(_END in cell for cell in row[-1:]):  # the row has swallowed it
                    raise _Unclosed
                if len(row) > 1 or (row and (row[0] == "" or row[0].strip(" \t"))):  # an empty line has no field
                    yield self.line, row
                self.line = reader.line_num + 1 + self.skipped

    def _lines(self, file: Any) -> Iterator[str]:
        try:
            for line in file:
                if '"' in line:
                    self.has_quotes = True
                yield line
        except UnicodeError as error:
            raise self._undecodable(error) from error

    def _undecodable(self, error: UnicodeError) -> UserError:
        """In which line it stands that is not in the encoding, and what to say instead."""
        name = "UTF-8" if self.encoding == "utf-8-sig" else self.encoding
        number = 0
        if self.encoding in ("utf-8-sig", "cp1252", "ascii"):  # the reader is ahead of the line: look for it
            with open_binary(self.source) as file:
                number, error = next(filter(None, map(self._wrong, enumerate(file, start=1))), (0, error))
        hint = "give another dataset.encoding" if self.given else "dataset.encoding=cp1252 reads old Windows files"
        where = f", line {number}" if number else ""
        return UserError(f"{self.source} is not {name}{where}: {getattr(error, 'reason', None) or error}; {hint}")

    def _wrong(self, numbered: tuple[int, bytes]) -> tuple[int, UnicodeError] | None:
        try:
            numbered[1].decode(self.encoding)
        except UnicodeError as error:
            return numbered[0], error
        return None


def open_binary(source: str) -> BinaryIO:
    """The file, unpacked if its name ends in `.gz`, `.bz2` or `.xz`."""
    return cast(BinaryIO, _PACKED.get(os.path.splitext(source)[1].lower(), open)(source, "rb"))


def open_text(source: str, encoding: str) -> TextIO:
    """`open_binary` as text, with line ends as they are."""
    return io.TextIOWrapper(open_binary(source), encoding=encoding, newline="")


def _spreadsheet_note(file: TextIO) -> str | None:
    """The separator that a first line such as `sep=;` gives, by which spreadsheets tell each other."""
    try:
        match = re.fullmatch(r"\ufeff?sep=(.)\s*", file.readline(64))
    except UnicodeError:
        return None
    return match.group(1) if match else None


def _separator(source: str, given: str | None) -> str:
    if given is None:
        stem, ending = os.path.splitext(source.lower())
        return "\t" if (stem if ending in _PACKED else source.lower()).endswith((".tsv", ".tab")) else ","
    separator = {"tab": "\t", "\\t": "\t"}.get(given, given) if isinstance(given, str) else ""
    if not separator or separator in ('"', "\n", "\r"):
        raise UserError(f"dataset.separator={given!r}: give one character, tab, or a regular expression such as \\s+")
    if len(separator) > 1:
        try:
            re.compile(separator)
        except re.error as error:
            raise UserError(f"dataset.separator={given!r} is no regular expression: {error}") from error
    return separator


def _unlike(header: Sequence[str]) -> list[str]:
    """Column names as pandas gives them: those without a name are called `Unnamed: 3`."""
    return [name if name else f"Unnamed: {index}" for index, name in enumerate(header)]


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
