"""Exports of Label Studio, in the shape that its converter gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from label_pools import FakeItems, photos, sentences

from alfm.errors import UserError
from alfm.labelling.label_files import read


def choice(*labels: str, question: str = "label") -> list[dict[str, Any]]:
    value = {"choices": list(labels)}
    return [{"from_name": question, "to_name": "image", "type": "choices", "value": value}] if labels else []


def annotation(*labels: str, by: Any = 1, at: str = "2026-01-01T10:00:00Z", **more: Any) -> dict[str, Any]:
    own = {"completed_by": by, "result": choice(*labels), "was_cancelled": False, "updated_at": at, "created_at": at}
    return {"id": 9, **own, **more}


def task(item: str | None, *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    data = {"image": f"/data/local-files/?d=photos/{item}"} | ({} if item is None else {"alfm_id": item})
    return {"id": 1, "data": data, "annotations": list(annotations), "drafts": [], "predictions": [], **more}


def write(folder: Path, records: list[Any]) -> Path:
    path = folder / "export.json"
    path.write_text(json.dumps(records))
    return path


def acts(found) -> list[tuple]:
    return [tuple(act) for act in found.acts]


def test_raw_json_with_all_that_happens(tmp_path):
    guess = {"model_version": "m", "result": choice("dog")}
    found = read(
        write(
            tmp_path,
            [
                task("bird.jpg", annotation("bird")),
                task("cat/001.jpg", annotation("cat", was_cancelled=True)),
                task("cat/002.jpg", predictions=[guess]),
                task("dog/001.jpg", drafts=[{"result": choice("dog")}]),
                task(
                    "dog/003.jpg",
                    annotation("cat", by={"id": 4, "email": "ann@x.org"}, at="2026-01-02"),
                    annotation("dog", by=2),
                    annotation("dog", by={"id": 4, "email": "ann@x.org"}, at="2026-01-03"),
                    annotation("bird", by={"id": 4, "email": "ann@x.org"}, at="2026-01-01"),
                ),
                task("gone.jpg", annotation("cat")),
                task("bird.jpg", annotation(by=3)),
            ],
        ),
        photos(),
    )
    assert acts(found) == [
        ("bird.jpg", "label", "bird", "1"),
        ("cat/001.jpg", "skip", None, "1"),
        ("dog/003.jpg", "label", "dog", "ann@x.org"),
        ("dog/003.jpg", "label", "dog", "2"),
    ]
    assert found.counts == {
        "without a label": 1,
        "drafts, which are no labels": 1,
        "said anew later": 2,
        "annotations without a choice": 1,
    }
    assert len(found.listed) == 1 and "gone.jpg" in found.listed[0]


def test_the_word_that_is_newer_stands_wherever_it_is_written(tmp_path):
    newer, older = annotation("dog", at="2026-02-01"), annotation("cat", at="2026-01-01", was_cancelled=True)
    found = read(write(tmp_path, [task("bird.jpg", newer, older)]), photos())
    assert acts(found) == [("bird.jpg", "label", "dog", "1")]


def test_tasks_without_our_id_are_found_by_what_they_show_never_by_their_number(tmp_path):
    anonymous = task(None, annotation("x"), id=0)
    anonymous["data"] = {"image": "/data/upload/3/0a1b2c3d-bird.jpg"}
    assert acts(read(write(tmp_path, [anonymous]), photos())) == [("bird.jpg", "label", "x", "1")]
    anonymous["data"] = {"text": "good film"}
    assert acts(read(write(tmp_path, [anonymous]), sentences())) == [("t:0", "label", "x", "1")]
    anonymous["data"] = {"audio": "http://x/1.wav"}
    assert not acts(read(write(tmp_path, [anonymous]), FakeItems(["0", "1"])))


def test_several_choices_and_several_questions_are_refused(tmp_path):
    with pytest.raises(UserError, match="multi-label"):
        read(write(tmp_path, [task("bird.jpg", annotation("a", "b"))]), photos())
    two = [annotation(result=choice("a", question="q1")), annotation(result=choice("b", question="q2"))]
    with pytest.raises(UserError, match="answers 2 questions, q1, q2"):
        read(write(tmp_path, [task("bird.jpg", *two)]), photos())
    assert acts(read(write(tmp_path, [task("bird.jpg", two[0])]), photos())) == [("bird.jpg", "label", "a", "1")]


@pytest.mark.parametrize(
    "result", [5, "a", {"a": 1}, [5], [{"type": "choices", "from_name": "label", "value": {"choices": 5}}]]
)
def test_results_that_are_none_are_counted(tmp_path, result):
    found = read(write(tmp_path, [task("bird.jpg", {"result": result})]), photos())
    assert not found.acts and found.counts == {"annotations without a choice": 1}


def test_rows_that_are_none_are_listed(tmp_path):
    found = read(write(tmp_path, [{"annotation_id": 1, "alfm_id": "gone", "label": "a"}, 5]), photos())
    assert not found.acts and len(found.left_out) == 2


def test_json_min(tmp_path):
    row = {"image": "/data/x", "id": 1, "annotator": 1, "annotation_id": 1, "lead_time": 1.0}
    found = read(
        write(
            tmp_path,
            [
                {**row, "alfm_id": "bird.jpg", "label": "a", "updated_at": "2026-01-02"},
                {**row, "alfm_id": "bird.jpg", "label": "b", "updated_at": "2026-01-01"},
                {**row, "alfm_id": "bird.jpg", "label": "b", "updated_at": "2026-01-01", "annotator": 2},
                {**row, "alfm_id": "cat/001.jpg"},
            ],
        ),
        photos(),
    )
    assert acts(found) == [("bird.jpg", "label", "a", "1"), ("bird.jpg", "label", "b", "2")]
    assert found.counts == {"said anew later": 1, "without a label": 1}
    with pytest.raises(UserError, match="multi-label"):
        read(write(tmp_path, [{**row, "alfm_id": "bird.jpg", "label": {"choices": ["a", "b"]}}]), photos())
    with pytest.raises(UserError, match="has no field 'label'"):
        read(write(tmp_path, [{**row, "alfm_id": "bird.jpg", "kind": "a"}]), photos())
