"""Batches as people's tools read them."""

from __future__ import annotations

import csv
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from label_pools import FakeItems, photos, sentences

from alfm.errors import UserError
from alfm.labelling.label_files import read
from alfm.labelling.status import Item
from alfm.labelling.written.asked import Asked
from alfm.labelling.written.class_folders import write_links
from alfm.labelling.written.jsonl import write_lines
from alfm.labelling.written.label_studio import Server, write_config, write_tasks
from alfm.labelling.written.next_csv import write_next

HOSTILE = ["=cmd()", "two\nlines", "<script>alert(1)</script>", 'a"b', "a;=b()", "Möwe", "'=x", " spaces "]


def asked(items: FakeItems, classes=("cat", "dog"), suggestion: str | None = "cat") -> Asked:
    found = [Item(row, item, None, None, suggestion, 0.75) for row, item in enumerate(items.ids)]
    return Asked(found, 3, "abc123", list(classes))


def server(items: FakeItems, url_prefix: str | None = None) -> Server:
    return Server([path for row in range(items.N) if (path := items.path(row))], url_prefix)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle))


# ---- next.csv --------------------------------------------------------------------------------------------------------


def test_next_csv_is_filled_in_and_read_back(tmp_path):
    items = photos(tmp_path / "pool")
    write_next(tmp_path / "next.csv", asked(items), items)
    text = (tmp_path / "next.csv").read_text()
    assert text.startswith('"id","path","suggestion","confidence","label","purpose","round","label_set"\n')
    assert rows(tmp_path / "next.csv")[0] == {
        "id": "cat/001.jpg", "path": str(tmp_path / "pool" / "cat" / "001.jpg"), "suggestion": "cat",
        "confidence": "0.75", "label": "", "purpose": "pick", "round": "3", "label_set": "abc123",
    }  # fmt: skip
    found = read(tmp_path / "next.csv", items)
    assert not found.acts and not found.listed and found.counts == {"without a label": 5}
    (tmp_path / "next.csv").write_text(text.replace('0.75,""', '0.75,"dog"').replace(",", ";"))
    assert {act.item: act.label for act in read(tmp_path / "next.csv", items).acts} == dict.fromkeys(items.ids, "dog")


def test_what_is_hostile_comes_back_as_it_was(tmp_path):
    items = FakeItems([f"-{n}" for n in range(len(HOSTILE))], list(HOSTILE), modality="text")
    batch = Asked(
        [Item(row, item, None, None, HOSTILE[row], 0.5) for row, item in enumerate(items.ids)], 1, "", HOSTILE
    )
    write_next(tmp_path / "next.csv", batch, items)
    written = rows(tmp_path / "next.csv")
    assert written[0]["id"] == "'-0" and written[0]["text"] == "'=cmd()" and written[0]["suggestion"] == "'=cmd()"
    assert '"a;=b()"' in (tmp_path / "next.csv").read_text(encoding="utf-8-sig")
    text = (tmp_path / "next.csv").read_text(encoding="utf-8-sig").replace('"label"', '"x"', 1)
    (tmp_path / "filled.csv").write_text(text.replace('"suggestion"', '"label"', 1), encoding="utf-8")
    found = read(tmp_path / "filled.csv", items, HOSTILE)
    assert [(act.item, act.label) for act in found.acts] == list(zip(items.ids, HOSTILE, strict=True))


def test_files_of_others_are_not_written_over(tmp_path):
    items = photos()
    for name, write in {
        "next.csv": lambda file: write_next(file, asked(items), items),
        "tasks.json": lambda file: write_tasks(file, asked(items), items, server(items), "m"),
        "config.xml": lambda file: write_config(file, ["a"], items),
        "next.jsonl": lambda file: write_lines(file, asked(items), items, server(items)),
    }.items():
        write(tmp_path / name), write(tmp_path / name)
        (tmp_path / name).write_text("id,label\nmine,1\n")
        with pytest.raises(UserError, match="was not written by this command"):
            write(tmp_path / name)
        assert (tmp_path / name).read_text() == "id,label\nmine,1\n"
        with pytest.raises(UserError, match="cannot be written"):
            write(tmp_path / "gone" / name)
    write_next(tmp_path / "x.csv", asked(items), items)
    (tmp_path / "x.csv").write_text((tmp_path / "x.csv").read_text().replace(",", ";").replace('"', ""))
    write_next(tmp_path / "x.csv", asked(items), items)  # ours, as a spreadsheet saves it
    for batch in (Asked([], 1, "", ["a"]), asked(items)):  # and one in which nothing was asked for
        write_tasks(tmp_path / "none.json", batch, items, server(items), "m")


# ---- Label Studio ----------------------------------------------------------------------------------------------------


def test_tasks_name_files_on_the_server(tmp_path):
    items = photos(tmp_path / "my pool")
    place = server(items)
    write_tasks(tmp_path / "tasks.json", asked(items), items, place, "alfm round 3")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["alfm_id"] for task in tasks] == items.ids
    assert tasks[0] == {
        "data": {"alfm_id": "cat/001.jpg", "image": "/data/local-files/?d=my%20pool/cat/001.jpg"},
        "predictions": [
            {
                "model_version": "alfm round 3",
                "score": 0.75,
                "result": [
                    {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]}}
                ],
            }
        ],
        "meta": {"round": 3, "label_set": "abc123"},
    }
    assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true" in place.said
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}," in place.said
    found = read(tmp_path / "tasks.json", items)  # suggestions are no labels
    assert not found.acts and found.counts == {"without a label": 5}
    elsewhere = server(items, "https://x.org/pool/")
    write_tasks(tmp_path / "tasks.json", asked(items, suggestion=None), items, elsewhere, "m")
    first = json.loads((tmp_path / "tasks.json").read_text())[0]
    assert first["data"]["image"] == "https://x.org/pool/cat/001.jpg" and first["predictions"] == []
    assert elsewhere.said is None


def test_texts_and_items_that_cannot_be_shown(tmp_path):
    for items, shown in ((sentences(), "good film"), (FakeItems(["a", "b"], why_unseen="nobody knows"), "a")):
        write_tasks(tmp_path / "tasks.json", asked(items), items, server(items), "m")
        task = json.loads((tmp_path / "tasks.json").read_text())[0]
        assert task["data"]["text"] == shown and task["predictions"][0]["result"][0]["to_name"] == "text"
        write_config(tmp_path / "config.xml", ["a"], items)
        assert 'valueType="text"' in (tmp_path / "config.xml").read_text()


def test_the_configuration_names_every_class_as_it_is(tmp_path):
    names = [*HOSTILE, *map(str, range(12))]
    write_config(tmp_path / "config.xml", names, photos())
    found = ElementTree.parse(tmp_path / "config.xml").getroot()
    assert [one.get("value") for one in found.iter("Choice")] == names
    choices = found.find("Choices")
    assert choices.attrib == {"name": "label", "toName": "image", "choice": "single"}
    assert found.find("Image").get("name") == "image"
    with pytest.raises(UserError, match="rename it"):
        write_config(tmp_path / "config.xml", ["a\1"], photos())


# ---- JSON lines ------------------------------------------------------------------------------------------------------


def test_lines_hold_options_and_no_answers(tmp_path):
    items = photos(tmp_path / "pool")
    write_lines(tmp_path / "next.jsonl", asked(items), items, server(items))
    lines = [json.loads(line) for line in (tmp_path / "next.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "meta": {
            "alfm_id": "cat/001.jpg",
            "round": 3,
            "label_set": "abc123",
            "suggestion": "cat",
            "confidence": 0.75,
        },
        "image": str(tmp_path / "pool" / "cat" / "001.jpg"),
        "options": [{"id": "cat", "text": "cat"}, {"id": "dog", "text": "dog"}],
    }
    assert not read(tmp_path / "next.jsonl", items).acts
    answered = [line | {"accept": ["dog"], "answer": "accept"} for line in lines]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, answered)))
    assert {act.item: act.label for act in read(tmp_path / "answers.jsonl", items).acts} == dict.fromkeys(
        items.ids, "dog"
    )
    write_lines(tmp_path / "next.jsonl", asked(sentences()), sentences(), server(sentences()))
    assert json.loads((tmp_path / "next.jsonl").read_text().splitlines()[0])["text"] == "good film"


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_links_are_moved_and_read_back(tmp_path):
    items, folder = photos(tmp_path / "pool"), tmp_path / "labelled"
    told = [("cat/001.jpg", "a/b"), ("dog/001.jpg", "a/b"), ("bird.jpg", "bird")]
    assert write_links(folder, told, items) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["%a%2Fb", ".alfm-links", "bird"]
    assert sorted(path.name for path in (folder / "%a%2Fb").iterdir()) == ["001.jpg", "dog__001.jpg"]
    assert {act.item: act.label for act in read(folder, items).acts} == dict(told)
    os.rename(folder / "bird" / "bird.jpg", folder / "%a%2Fb" / "bird.jpg")
    assert {act.item: act.label for act in read(folder, items).acts} == {**dict(told), "bird.jpg": "a/b"}
    assert write_links(folder, told[:1], items) == 1 and not (folder / "bird").exists()


def test_folders_and_files_of_others_stay(tmp_path):
    items, folder = photos(tmp_path / "pool"), tmp_path / "labelled"
    folder.mkdir()
    with pytest.raises(UserError, match="was not written by this command"):
        write_links(folder, [], items)
    folder.rmdir()
    write_links(folder, [("bird.jpg", "x")], items)
    (folder / "x" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match=r"mine.txt is a file"):
        write_links(folder, [], items)
    assert (folder / "x" / "mine.txt").read_text() == "kept"
