"""Labels in tables as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from label_pools import FakeItems, photos, sentences

from alfm.errors import UserError
from alfm.labelling.label_files import read


def write(folder: Path, text: str, encoding: str = "utf-8", name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def labels(found) -> dict[str, str | None]:
    return {act.item: act.label for act in found.acts}


TWO = {"cat/001.jpg": "cat", "bird.jpg": "bird"}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", ["", "id,label\n", "Filename,Class\n", "label,id\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_two_columns_in_every_dress(tmp_path, separator, header, encoding):
    lines = [f"{item},{label}" if not header.startswith("label") else f"{label},{item}" for item, label in TWO.items()]
    text = (header + "\n".join(lines) + "\n").replace(",", separator)
    found = read(write(tmp_path, text, encoding), photos())
    assert labels(found) == TWO and not found.listed


def test_labels_may_stand_first_without_a_header(tmp_path):
    assert labels(read(write(tmp_path, "cat,cat/001.jpg\nbird,bird.jpg\n"), photos())) == TWO


def test_windows_1252_with_semicolons(tmp_path):
    found = read(write(tmp_path, "id;label\r\nbird.jpg;Möwe\r\ncat/001.jpg;Käfer\r\n", "cp1252"), photos())
    assert labels(found) == {"bird.jpg": "Möwe", "cat/001.jpg": "Käfer"}
    assert found.notes == [f"{tmp_path / 'labels.csv'} is not UTF-8: read as Windows-1252"]


def test_the_separator_that_a_spreadsheet_notes(tmp_path):
    assert labels(read(write(tmp_path, "sep=;\nid;label\nbird.jpg;a,b\n"), photos())) == {"bird.jpg": "a,b"}


@pytest.mark.parametrize(
    ("text", "pool", "classes", "says"),
    [
        ("id,label\ncat,dog\n", FakeItems(["id", "cat"]), (), "alfm_id"),
        ("0,1\n1,0\n", FakeItems(["0", "1", "2"]), (), "both of its columns"),
        ("photo,kind\nbird.jpg,bird\n", photos(), (), "may be names of columns"),
        ("x.jpg,bird\ny.jpg,cat\n", photos(), (), "neither of its two columns"),
        ("a,b;c\na,d;c\n", FakeItems(["a", "a,b", "a,d"]), (), "two ways"),
        ("bird.jpg\n", photos(), (), "no two columns"),
        ("bird.jpg,bird,today\n", photos(), (), "no line of names"),
        ("id,kind\nbird.jpg,bird\n", photos(), (), "no label among"),
        ("thing,label\nbird.jpg,bird\n", photos(), (), "no id among"),
        ("id,label,label\nbird.jpg,a,b\n", photos(), (), "2 columns 'label'"),
        ("id,label\nbird.jpg\n", photos(), (), "ends before the column 'label'"),
        ("id,label\nbird.jpg,a,b\n", photos(), (), "3 fields"),
        ('id,label\nbird.jpg,"a\n', photos(), (), "never closed"),
        ("", photos(), (), "is empty"),
        ("i\0d,label\n", photos(), (), "NUL"),
    ],
)
def test_what_can_be_read_in_two_ways_or_none_is_refused_in_a_sentence(tmp_path, text, pool, classes, says):
    with pytest.raises(UserError, match=says) as refused:
        read(write(tmp_path, text), pool, classes)
    assert "dataset." not in str(refused.value) and "\n" not in str(refused.value)


def test_numbers_as_ids_and_labels_are_told_apart_by_a_header_or_by_the_classes(tmp_path):
    pool = FakeItems([str(n) for n in range(20)])
    assert labels(read(write(tmp_path, "id,label\n17,1\n3,0\n"), pool)) == {"17": "1", "3": "0"}
    assert labels(read(write(tmp_path, "17,1\n3,0\n"), pool, ["0", "1"])) == {"17": "1", "3": "0"}
    assert labels(read(write(tmp_path, "id,label\n17,1.0\n3,007\n"), pool)) == {"17": "1", "3": "007"}


def test_unknown_ids_are_counted_and_named(tmp_path):
    lines = "".join(f"gone{n}.jpg,cat\n" for n in range(9))
    found = read(write(tmp_path, "id,label\nbird.jpg,bird\n" + lines), photos())
    assert labels(found) == {"bird.jpg": "bird"} and len(found.left_out) == 9
    assert found.listed == [
        "9 left out, no such item in the pool: 'gone0.jpg' (row 2), 'gone1.jpg' (row 3), 'gone2.jpg' (row 4), "
        "'gone3.jpg' (row 5), 'gone4.jpg' (row 6) and 4 more"
    ]


def test_an_item_said_twice_counts_once_and_a_contradiction_is_left_out(tmp_path):
    found = read(write(tmp_path, "id,label\nbird.jpg,a\nbird.jpg,a\ncat/001.jpg,a\ncat/001.jpg,b\n"), photos())
    assert labels(found) == {"bird.jpg": "a"} and found.counts["said once more"] == 1
    assert found.listed == ["1 left out, it is given 'a' and 'b': 'cat/001.jpg' (row 3)"]


def test_annotators_of_a_table_each_have_a_word(tmp_path):
    found = read(write(tmp_path, "id,label,annotator\nbird.jpg,a,ann\nbird.jpg,b,ben\n"), photos())
    assert [(act.annotator, act.label) for act in found.acts] == [("ann", "a"), ("ben", "b")]


def test_file_names_are_ends_of_paths_and_several_are_none(tmp_path):
    text = "filename,label\n002.jpg,a\n001.jpg,b\n/far/photos/dog/003.jpg,c\ndog\\001.jpg,d\ncow/002.jpg,e\n"
    found = read(write(tmp_path, text), photos())
    assert labels(found) == {"cat/002.jpg": "a", "dog/003.jpg": "c", "dog/001.jpg": "d"}
    assert [one.why for one in found.left_out] == ["it fits several items of the pool", "no such item in the pool"]


@pytest.mark.parametrize("path", ["../../etc/passwd", "..\\bird.jpg", "x/../bird.jpg", "../bird.jpg"])
def test_paths_that_climb_are_no_items(tmp_path, path):
    found = read(write(tmp_path, f"filename,label\n{path},a\ndog/003.jpg,b\n"), photos())
    assert labels(found) == {"dog/003.jpg": "b"} and "climbs out" in found.listed[0]


def test_texts_are_found_where_unique(tmp_path):
    found = read(write(tmp_path, 'text,label\n"so, so",x\ngood film,y\nbad film,z\n'), sentences())
    assert labels(found) == {"t:2": "x", "t:0": "y"} and "several" in found.listed[0]


def test_a_number_that_is_somebody_elses_is_not_taken_for_an_id(tmp_path):
    pool = FakeItems(["0", "1", "2"], ["good", "bad", "so"])
    found = read(write(tmp_path, "id,text,label\n1,good,a\n2,so,b\n"), pool)
    assert labels(found) == {"2": "b"} and "another's" in found.listed[0]


def test_nothing_skips_and_words_for_nothing(tmp_path):
    text = "id,label\nbird.jpg,\ncat/001.jpg,?\ncat/002.jpg,nan\ndog/001.jpg, dog \n"
    found = read(write(tmp_path, text), photos())
    assert labels(found) == {"cat/001.jpg": None, "dog/001.jpg": "dog"}
    assert found.counts["without a label"] == 1 and "may mean nothing" in found.listed[0]
    found = read(write(tmp_path, text), photos(), ["nan", "?", "dog"])
    assert labels(found) == {"cat/001.jpg": "?", "cat/002.jpg": "nan", "dog/001.jpg": "dog"}


def test_formulas_lines_and_markup_are_labels_like_others(tmp_path):
    text = 'id,label\nbird.jpg,\'=cmd()\ncat/001.jpg,"two\nlines"\ncat/002.jpg,<script>alert(1)</script>\n'
    found = read(write(tmp_path, text), photos())
    assert labels(found) == {
        "bird.jpg": "=cmd()",
        "cat/001.jpg": "two\nlines",
        "cat/002.jpg": "<script>alert(1)</script>",
    }


def test_ids_that_look_like_formulas_are_found_with_and_without_a_quote(tmp_path):
    pool = FakeItems(["=a.jpg", "-b.jpg", "'=c.jpg"])
    found = read(write(tmp_path, "id,label\n'=a.jpg,x\n-b.jpg,y\n''=c.jpg,z\n"), pool)
    assert labels(found) == {"=a.jpg": "x", "-b.jpg": "y", "'=c.jpg": "z"}


def test_a_quote_of_ours_is_told_from_an_id_that_has_one(tmp_path):
    pool = FakeItems(["=a.jpg", "'=a.jpg"])
    text = (
        "id,path,suggestion,confidence,label,purpose,round,label_set\n'=a.jpg,,,,x,pick,1,s\n''=a.jpg,,,,y,pick,1,s\n"
    )
    assert labels(read(write(tmp_path, text), pool)) == {"=a.jpg": "x", "'=a.jpg": "y"}


def test_an_id_and_a_file_that_are_two_items_are_neither(tmp_path):
    found = read(
        write(tmp_path, "id,filename,label\ncat/001.jpg,dog/003.jpg,a\nbird.jpg,/photos/bird.jpg,b\n"), photos()
    )
    assert labels(found) == {"bird.jpg": "b"} and "another's" in found.listed[0]


def test_predictions_are_no_labels(tmp_path):
    with pytest.raises(UserError, match="holds predictions, most of them the model's"):
        read(write(tmp_path, '"id","label","confidence","by"\n"bird.jpg","a",0.9,"model"\n'), photos())


def test_a_row_that_is_cut_where_the_first_look_ends(tmp_path):
    text = "bird.jpg,bird\n" + "".join(f"{'é' * 1000}{row},x\n" for row in range(180))
    assert labels(read(write(tmp_path, text), photos())) == {"bird.jpg": "bird"}


def test_a_nul_in_a_label_is_left_out(tmp_path):
    found = read(write(tmp_path, "id,label\nbird.jpg,a\ncat/001.jpg,b\0c\n"), photos())
    assert labels(found) == {"bird.jpg": "a"} and "NUL" in found.listed[0]


def test_names_are_equal_in_either_unicode_form(tmp_path):
    pool = FakeItems(["caf\u00e9.jpg", "a\u0301.jpg"])
    found = read(write(tmp_path, "id,label\ncafe\u0301.jpg,x\n\u00e1.jpg,y\n"), pool)
    assert labels(found) == {"caf\u00e9.jpg": "x", "a\u0301.jpg": "y"}


def test_new_classes_are_pointed_out(tmp_path):
    found = read(write(tmp_path, "id,label\nbird.jpg,Bird\ncat/001.jpg,cat\n"), photos(), ["bird", "cat"])
    assert found.notes == ["'Bird' is a new class, of 1 items (did you mean bird?)"]


def test_an_export_of_label_studio_goes_by_our_id_not_by_its_own(tmp_path):
    pool = FakeItems(["0", "1", "2", "3"])
    text = (
        "alfm_id,annotation_id,annotator,created_at,id,image,label,lead_time,updated_at\n"
        "3,11,1,2026-01-01T00:00:00Z,1,/data/local-files/?d=x/a.jpg,cat,1.0,2026-01-01T00:00:00Z\n"
        "3,12,1,2026-01-01T00:00:00Z,1,/data/local-files/?d=x/a.jpg,dog,1.0,2026-01-02T00:00:00Z\n"
        "2,13,2,2026-01-01T00:00:00Z,2,/data/local-files/?d=x/b.jpg,,1.0,2026-01-01T00:00:00Z\n"
    )
    found = read(write(tmp_path, text), pool)
    assert [tuple(act) for act in found.acts] == [("3", "label", "dog", "1")]
    assert found.counts == {"said anew later": 1, "without a label": 1}
    several = text.replace(",cat,", ',"{""choices"": [""cat"", ""dog""]}",')
    with pytest.raises(UserError, match="multi-label"):
        read(write(tmp_path, several), pool)


def test_a_hundred_thousand_rows_most_of_them_unknown(tmp_path):
    pool = FakeItems([f"p/{n}.jpg" for n in range(20_000)])
    path = write(tmp_path, "".join(f"p/{n}.jpg,class {n % 7}\n" for n in range(100_000)))
    found = read(path, pool)
    assert len(found.acts) == 20_000 and len(found.left_out) == 80_000


def test_a_spreadsheets_own_file_is_named(tmp_path):
    with pytest.raises(UserError, match="save the sheet as CSV"):
        read(write(tmp_path, "PK\3\4rest", name="labels.xlsx"), photos())
