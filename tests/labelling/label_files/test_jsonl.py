"""Labels in JSON: lines, lists, Prodigy, doccano."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from label_pools import FakeItems, photos, sentences

from alfm.errors import UserError
from alfm.labelling.label_files import read


def write(folder: Path, *records: Any, name: str = "labels.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def acts(found) -> list[tuple]:
    return [tuple(act) for act in found.acts]


@pytest.mark.parametrize(
    "key",
    [
        {"id": "cat/002.jpg"},
        {"alfm_id": "cat/002.jpg", "id": 7},
        {"meta": {"alfm_id": "cat/002.jpg"}, "id": "bird.jpg"},
        {"filename": "002.jpg"},
        {"image": "/data/local-files/?d=photos/cat/002.jpg"},
        {"image": "https://host.org/pool/cat/002.jpg?x=1"},
        {"image": "data:image/png;base64,AAAA", "path": "photos/cat/002.jpg"},
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        {"label": "cat"},
        {"labels": ["cat"]},
        {"label": ["cat"]},
        {"accept": ["cat"], "answer": "accept"},
        {"label": "cat", "answer": "accept"},
    ],
)
def test_every_key_and_every_value(tmp_path, key, value):
    found = read(write(tmp_path, {**key, **value}), photos())
    assert acts(found) == [("cat/002.jpg", "label", "cat", None)] and not found.listed


def test_texts_where_unique(tmp_path):
    found = read(write(tmp_path, {"text": "so, so", "label": 1}, {"text": "bad film", "label": 0}), sentences())
    assert acts(found) == [("t:2", "label", "1", None)] and "several" in found.listed[0]


def test_prodigys_answers(tmp_path):
    found = read(
        write(
            tmp_path,
            {"id": "bird.jpg", "answer": "ignore", "_annotator_id": "ann"},
            {"id": "cat/001.jpg", "label": "dog", "answer": "reject"},
            {"id": "cat/002.jpg", "accept": ["dog"], "answer": "reject"},
            {"id": "dog/001.jpg", "accept": [], "answer": "accept"},
            {"id": "dog/001.jpg", "accept": [], "answer": "reject"},
            {"id": "dog/003.jpg", "label": "dog", "answer": "maybe"},
        ),
        photos(),
    )
    assert acts(found) == [
        ("bird.jpg", "skip", None, "ann"),
        ("cat/001.jpg", "reject", "dog", None),
        ("cat/002.jpg", "reject", "dog", None),
    ]
    assert found.counts == {"without a label": 1, "rejections that name no class": 1} and len(found.listed) == 1
    assert str(found).endswith(
        "0 labels, 1 that nobody can tell, 2 rejected classes, 1 without a label, 1 rejections that name no class"
    )


def test_the_last_word_of_an_annotator_stands(tmp_path):
    words = [("a", "cat"), ("b", "dog"), ("a", "bird"), ("a", None)]
    lines = [{"id": "bird.jpg", "label": word, "annotator": who} for who, word in words]
    found = read(write(tmp_path, *lines), photos())
    assert acts(found) == [("bird.jpg", "label", "bird", "a"), ("bird.jpg", "label", "dog", "b")]
    assert found.counts == {"said anew later": 1, "without a label": 1}


@pytest.mark.parametrize("value", [{"labels": ["a", "b"]}, {"accept": ["a", "b"]}, {"label": ["a", "b"]}])
def test_several_labels_are_refused(tmp_path, value):
    with pytest.raises(UserError, match=r"line 1 has several labels, 'a', 'b': .*multi-label"):
        read(write(tmp_path, {"id": "bird.jpg", **value}), photos())


@pytest.mark.parametrize("value", [[[0, 5, "PER"]], True, {"a": 1}, 1.5])
def test_what_is_no_class_is_refused(tmp_path, value):
    with pytest.raises(UserError):
        read(write(tmp_path, {"id": "bird.jpg", "label": value}), photos())


def test_a_list_and_other_endings(tmp_path):
    (tmp_path / "x.json").write_text('\ufeff [{"id": "bird.jpg", "label": "x"}, 3]', encoding="utf-8")
    found = read(tmp_path / "x.json", photos())
    assert acts(found) == [("bird.jpg", "label", "x", None)] and "no JSON object" in found.listed[0]
    assert acts(read(write(tmp_path, {"id": "bird.jpg", "label": "x"}, name="notes.txt"), photos()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"id": "bird.jpg", "label": "x"}\n{"id": "bi', "line 2 is no JSON"),
        (b"[1, 2", "is no JSON"),
        (b'{"id": "bird.jpg", "label": "x", "label": "y"}\n', "'label' is there twice"),
        (b'[{"id": "bird.jpg", "id": "002.jpg", "label": "y"}]', "'id' is there twice"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"id": "\xff", "label": 1}\n', "not UTF-8"),
        (b'{"data": {}, "annotations": []}\n', "export the whole project"),
    ],
)
def test_what_is_no_json_is_named_by_line(tmp_path, text, says):
    (tmp_path / "x.jsonl").write_bytes(text)
    with pytest.raises(UserError, match=says):
        read(tmp_path / "x.jsonl", photos())


def test_numbers_of_other_programs_are_not_ids_where_the_text_is_anothers(tmp_path):
    pool = FakeItems(["0", "1", "2"], ["good", "bad", "so"])
    lines = [{"id": 0, "text": "good", "label": ["x"]}, {"id": 1, "text": "so", "label": ["y"]}]
    found = read(write(tmp_path, *lines), pool)
    assert acts(found) == [("0", "label", "x", None)] and "another's" in found.listed[0]


def test_lines_are_labels_and_what_is_no_text_is_none(tmp_path):
    no_text = [{"id": "dog/003.jpg", "label": label} for label in ("a\0", "\x1b[2J", "\ud800")]
    found = read(write(tmp_path, {"id": "bird.jpg", "label": "a\nb"}, *no_text), photos())
    assert acts(found) == [("bird.jpg", "label", "a\nb", None)] and "NUL" in found.listed[0]
    assert len(found.left_out) == 3 and all(line.isprintable() and line.isascii() for line in found.listed)
