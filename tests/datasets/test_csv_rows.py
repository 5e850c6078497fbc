"""CSV: every row in its columns, or a sentence."""

from __future__ import annotations

import csv
import gzip
import io
import random
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from alfm.datasets.csv_rows import read_csv
from alfm.errors import UserError

WANTED = ["text", "label"]


def write(tmp: Path, text: str | bytes, name: str = "a.csv") -> str:
    (tmp / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(tmp / name)


def read(tmp: Path, text: str | bytes, wanted: list[str] = WANTED, name: str = "a.csv", **options):
    found = read_csv(write(tmp, text, name), wanted, **options)
    return [list(row) for row in zip(*found.cells.values(), strict=True)], found.remarks


def refused(tmp: Path, text: str | bytes, wanted: list[str] = WANTED, name: str = "a.csv", **options) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp, text, wanted, name, **options)
    return str(caught.value)


def as_typed(message: str) -> dict[str, object]:
    """The first setting that a message names -> what Hydra makes of it."""
    typed = re.search(r"\"dataset\.[^\"]*\"|dataset\.\w+=\S+", message).group().rstrip(",;")
    override = OverridesParser.create().parse_override(shlex.split(typed)[0])
    return {override.key_or_group.removeprefix("dataset."): override.value()}


# ---- fields that do not fit -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("text,label\nhello, you,a\nb,c\n", 2),  # a comma in the first text moved all columns
        ("text,label\nb,c\nhello, you,a\n", 3),
        ("text,label\nb,c,1\nd,e,2\n", 2),
        ("label,text\na,one, two\n", 2),
        ("text;label\nx;y;z\n", 2),
    ],
)
def test_rows_with_too_many_fields_are_refused_with_their_line(tmp_path: Path, text: str, line: int) -> None:
    said = refused(tmp_path, text, separator=";" if ";" in text else None)
    assert f"line {line}: 3 fields, and the header has 2" in said and "must stand in quotes" in said


def test_empty_surplus_at_the_end_is_nothing(tmp_path: Path) -> None:
    for text in (
        "text,label\na,x,\nb,y,\n",
        "text,label,\na,x\nb,y,\n",
        "text,label,,\na,x,,,\nb,y\n",
        "text,label\na,x\nb,y,  \n",
    ):
        assert read(tmp_path, text) == ([["a", "x"], ["b", "y"]], [])
    assert read(tmp_path, "text,label,\na,x,note\n") == ([["a", "x"]], [])  # a column without a name, declared


def test_rows_with_too_few_fields(tmp_path: Path) -> None:
    assert "line 3: the row ends before the column 'label' (1 of 2 fields)" in refused(tmp_path, "text,label\na,x\nb\n")
    rows, remarks = read(tmp_path, "text,label,note\na,x\nb,y,z\nc,w\n")
    assert rows == [["a", "x"], ["b", "y"], ["c", "w"]]
    assert "rows with fewer fields than the header: 2, the first in line 2" in remarks[0]


def test_tables_that_were_joined_and_headers_given_twice(tmp_path: Path) -> None:
    assert "line 3: the header once more" in refused(tmp_path, "text,label\na,x\ntext,label\nb,y\n")
    assert "leave out dataset.columns" in refused(tmp_path, "text,label\na,x\n", columns=WANTED)
    assert read(tmp_path, "word\na\nword\n", ["word"])[0] == [["a"], ["word"]]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "\n  \ntext,label\n\na,x\n \nb,y\n\n")[0] == [["a", "x"], ["b", "y"]]
    assert read(tmp_path, 'text\n""\na\n\n', ["text"])[0] == [[""], ["a"]]


# ---- columns --------------------------------------------------------------------------------------------------------


def test_columns_are_found_in_any_unicode_form_and_once(tmp_path: Path) -> None:
    assert read(tmp_path, "cafe\u0301,y\na,b\n", ["caf\u00e9", "y"])[0] == [["a", "b"]]
    assert read(tmp_path, "\ufeff\ufefftext, label\na,b\n")[0] == [["a", "b"]]
    assert read(tmp_path, ",text,label\n7,a,b\n", ["Unnamed: 0", "label"])[0] == [["7", "b"]]
    assert "has 2 columns 'text'" in refused(tmp_path, "text,label,text\na,b,c\n")
    assert read(tmp_path, "text,label,x,x\na,b,c,d\n")[0] == [["a", "b"]]
    assert "no column 'label'; did you mean labels" in refused(tmp_path, "text,labels\na,b\n")
    assert "'dataset.columns=[NAME, ...]'" in refused(tmp_path, "good,1\nbad,0\n")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_wrong_separator_is_named(tmp_path: Path, separator: str) -> None:
    text = f"text{separator}label\na{separator}b\n"
    said = refused(tmp_path, text)
    assert "has one column" in said
    assert read(tmp_path, text, **as_typed(said))[0] == [["a", "b"]]


def test_the_first_line_of_spreadsheets_names_the_separator(tmp_path: Path) -> None:
    assert read(tmp_path, "sep=;\r\ntext;label\r\na;b\r\n")[0] == [["a", "b"]]
    assert read(tmp_path, "sep=;\ntext|label\na|b\n", separator="|")[0] == [["a", "b"]]
    assert "line 3: 3 fields" in refused(tmp_path, "sep=;\ntext;label\na;b;c\n")


def test_separators_of_several_characters(tmp_path: Path) -> None:
    assert read(tmp_path, "text  label\n  a \t b\n", separator=r"\s+")[0] == [["a", "b"]]
    assert read(tmp_path, "text::label\na::b\n", separator="::")[0] == [["a", "b"]]
    assert "line 2: 3 fields" in refused(tmp_path, "text::label\na::b::c\n", separator="::")
    said = refused(tmp_path, 'text::label\n"a::b\n', separator="::")
    assert read(tmp_path, 'text::label\n"a::b\n', separator="::", **as_typed(said))[0] == [['"a', "b"]]
    for wrong in ("", '"', "(("):
        assert "dataset.separator=" in refused(tmp_path, "text,label\n", separator=wrong)


# ---- quotes ---------------------------------------------------------------------------------------------------------


def stray(count: int = 100, every: int = 30) -> str:
    """A table of tweets: some begin with a quote, and later ones end with one."""
    texts = [f"tweet {i}" for i in range(count)]
    for i in range(0, count - 20, every):
        texts[i], texts[i + 20] = f'"{texts[i]}', f'{texts[i + 20]}"'
    return "id\ttext\tlabel\n" + "".join(f"{i}\t{text}\t{i % 2}\n" for i, text in enumerate(texts))


def test_stray_quotes_do_not_merge_rows(tmp_path: Path) -> None:
    text = stray()
    assert len(pd.read_csv(io.StringIO(text), sep="\t")) == 40
    said = refused(tmp_path, text, name="a.tsv")
    assert "has 40 rows if quotes enclose fields, and 100 if" in said
    assert as_typed(said) == {"quoting": "quoted"} and as_typed(said.partition("or dataset")[2].join(["dataset", ""]))
    rows, _ = read(tmp_path, text, name="a.tsv", quoting="none")
    assert len(rows) == 100 and rows[0] == ['"tweet 0', "0"] and rows[20] == ['tweet 20"', "0"]
    assert len(read(tmp_path, text, name="a.tsv", quoting="quoted")[0]) == 40


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    said = refused(tmp_path, 'text\tlabel\na\tx\n"b\ty\nc\tz\n', name="a.tsv")
    assert "has 2 rows if quotes enclose fields, and 3 if" in said and "quoting=quoted" not in said
    said = refused(tmp_path, 'text\tlabel\na\tx\nb\t"y\n', name="a.tsv")
    assert "line 3: a quote is never closed; if quotes belong to the texts, say dataset.quoting=none" in said
    said = refused(tmp_path, 'text\tlabel\na\tx\n"b" he said\tx\n"c\ty\nd\tz\n', name="a.tsv", quoting="quoted")
    assert "line 4: a quote is never closed" in said
    said = refused(tmp_path, 'text,label\n"multi\nline",a\nx,y,z\n', quoting="quoted")
    assert "line 4: 3 fields" in said  # lines are those of the file
    assert read(tmp_path, 'text\tlabel\nb\t"y', name="a.tsv", quoting="none")[0] == [["b", '"y']]


def test_well_formed_tables_with_line_breaks_are_read_without_asking(tmp_path: Path) -> None:
    texts = ["one\ntwo, three", 'she said "yes"\r\n\nand left', "plain", '"', ""]
    for shape in ({}, {"quoting": csv.QUOTE_ALL}, {"lineterminator": "\r\n"}, {"encoding": "utf-8-sig"}):
        pd.DataFrame({"text": texts, "label": list("abcde")}).to_csv(tmp_path / "w.csv", index=False, **shape)
        found = read_csv(str(tmp_path / "w.csv"), WANTED)
        assert found.cells == {"text": texts, "label": list("abcde")}
        assert "5 rows, some with fields in quotes that go over several lines" in found.remarks[0]
    pd.DataFrame({"text": ["one\ntwo"]}).to_csv(
        tmp_path / "one.csv", index=False
    )  # a single column: either may be meant
    with pytest.raises(UserError, match="has 1 rows if quotes enclose fields, and 2 if"):
        read_csv(str(tmp_path / "one.csv"), ["text"])


def test_equal_numbers_of_rows_take_what_stands_in_quotes(tmp_path: Path) -> None:
    assert read(tmp_path, 'text,label\n"a, b",x\n"he ""said""",y\n5" tall,z\n') == (
        [["a, b", "x"], ['he "said"', "y"], ['5" tall', "z"]],
        [],
    )
    rows, remarks = read(tmp_path, 'text\tlabel\n"great" she said\tx\n', name="a.tsv")
    assert rows == [["great she said", "x"]] and "line 2: a quote that closes a field is followed by more" in remarks[0]
    said = refused(tmp_path, 'text\tlabel\n"a\tx"\n', name="a.tsv")  # the pair of quotes swallows the separator
    assert "line 2: the row ends before the column 'label'" in said and "dataset.quoting=none" in said
    with pytest.raises(UserError, match="quoting=some"):
        read(tmp_path, "text,label\n", quoting="some")


def test_ordinary_tables_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    draw = random.Random(0)
    pieces = ["a", "b c", ",", '"', '""', "'", "\t", "é", " ", "7", ";", "\n", "\\"]
    for _ in range(60):
        rows = [
            ["".join(draw.choices(pieces, k=draw.randint(0, 6))) for _ in range(3)] for _ in range(draw.randint(1, 9))
        ]
        frame = pd.DataFrame(rows, columns=["text", "label", "n"]).assign(label="x", n="1")
        frame.to_csv(tmp_path / "p.csv", index=False, sep=draw.choice([",", ";", "\t"]), quoting=draw.choice([0, 1]))
        separator = max(",;\t", key=(tmp_path / "p.csv").read_text().splitlines()[0].count)
        shape = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
        there = pd.read_csv(tmp_path / "p.csv", **shape)["text"]
        assert read_csv(str(tmp_path / "p.csv"), ["text"], separator, quoting="quoted").cells["text"] == list(there)


# ---- encodings and packed files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-16-le", "utf-8", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    raw = "text,label\ncafé,x\nnaïve,y\n".encode(encoding)
    assert read(tmp_path, raw, encoding=encoding)[0] == [["café", "x"], ["naïve", "y"]]


def test_an_encoding_that_is_not_given_is_recognised_or_named(tmp_path: Path) -> None:
    text = "text,label\ncafé,x\n"
    for marked in ("utf-16", "utf-32", "utf-8-sig"):
        assert read(tmp_path, text.encode(marked))[0] == [["café", "x"]]
    said = refused(tmp_path, text.encode("cp1252"))
    assert "is not UTF-8, line 2" in said and read(tmp_path, text.encode("cp1252"), **as_typed(said))[0] == [
        ["café", "x"]
    ]
    said = refused(tmp_path, text.encode("utf-16-le"))
    assert "NUL" in said and read(tmp_path, text.encode("utf-16-le"), **as_typed(said))[0] == [["café", "x"]]
    assert "is not cp1252, line 2" in refused(tmp_path, b"text,label\n\x81,x\n", encoding="cp1252")
    for unknown in ("klingon", "base64", ""):
        assert "no such encoding" in refused(tmp_path, text, encoding=unknown)


def test_packed_tables(tmp_path: Path) -> None:
    raw = gzip.compress(b"text\tlabel\na\tx\n")
    assert read(tmp_path, raw, name="a.tsv.gz")[0] == [["a", "x"]]
