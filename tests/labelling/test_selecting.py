"""`python -m alfm.select` from labels to the next batch, on photographs of digits."""

from __future__ import annotations

import csv
import json
import os
import re
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alfm import extract, predict, select
from alfm.heads.export import load_module
from alfm.labelling.selecting import mixed
from alfm.labelling.status import Item

CLASSES = [f"digit {n}" for n in range(4)]
SELECT = ["cache=digits.h5", "n=6", "query_strategy=margins", f"classes=[{','.join(CLASSES)}]"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, digits_arrays) -> Path:
    """A flat folder of 80 photographs and its cache, as a person has them; `truth` by name."""
    folder = tmp_path_factory.mktemp("select")
    x, y = digits_arrays[:2]
    rows = [row for row in range(len(y)) if y[row] < 4][:80]
    (folder / "photos").mkdir()
    truth = {}
    for number, row in enumerate(rows):
        name = f"{number:02}.png"
        Image.fromarray((x[row].reshape(8, 8) * 255).astype(np.uint8)).save(folder / "photos" / name)
        truth[name] = CLASSES[y[row]]
    (folder / "truth.json").write_text(json.dumps(truth))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FEATURE_CACHE_DIR", str(folder / "features"))
        words = ["dataset=image_folder", "dataset.root=photos", "dataset.name=photos", "model=pixels"]
        assert extract.main(words) == 0
    os.rename(folder / "features" / "photos" / "pixels.h5", folder / "digits.h5")
    return folder


@pytest.fixture
def at(photographs, tmp_path, monkeypatch) -> Path:
    """A working folder with the cache in it."""
    monkeypatch.chdir(tmp_path)
    os.symlink(photographs / "digits.h5", tmp_path / "digits.h5")
    return tmp_path


def truth(photographs: Path) -> dict[str, str]:
    return json.loads((photographs / "truth.json").read_text())


def rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill(path: str, answers: dict[str, str]) -> None:
    """A person fills in what they know."""
    table = rows(path)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows({**row, "label": answers.get(row["id"], row["label"])} for row in table)


def run(capsys, *words: str) -> str:
    """What a successful call prints."""
    status = select.main(list(words))
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out


def refusal(capsys, *words: str, command=select) -> str:
    """The sentence of a call that is refused."""
    assert command.main(list(words)) != 0
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ") and "Traceback" not in said and "\n" not in said
    return said


def journal(folder: str = "digits.labelling") -> list[dict]:
    return [json.loads(line) for line in Path(folder, "journal.jsonl").read_text().splitlines()]


def test_labels_that_people_bring_are_none_of_an_audit_that_begins_with_them(photographs, at, capsys):
    """Somebody chose them."""
    mine = dict(list(truth(photographs).items())[:30])
    Path("mine.csv").write_text("id,label\n" + "".join(f"{item},{label}\n" for item, label in mine.items()))
    said = run(capsys, *SELECT, "labels=mine.csv", "audit=20")
    assert "30 of 80 items labelled (30 to train on)" in said and "Audit: 0 of 20 answered" in said
    assert "The audit waits for 20 labels" in said


def test_round_after_round_with_an_audit(photographs, at, capsys):
    said = run(capsys, *SELECT, "audit=5")
    first = rows("next.csv")
    assert [row["purpose"] for row in first].count("audit") == 5 and len(first) == 11
    assert "Round 1: 11 items to label (6 that the strategy wants, 5 of the audit)." in said
    assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED" in said and "+-5 points cost about" in said
    assert "Next: python -m alfm.select state=digits.labelling n=6 labels=next.csv" in said
    assert {"next.html", "next.label_studio.json", "label_studio.xml"} <= set(os.listdir())
    batch = next(act for act in journal() if act["act"] == "batch")
    assert [row["id"] for row in first if row["purpose"] == "pick"] == batch["items"]
    assert {(row["round"], row["label_set"]) for row in first} == {("1", batch["labels"])}
    fill("next.csv", truth(photographs))
    said = run(capsys, "state=digits.labelling", "n=6", "labels=next.csv")
    assert "next.csv: 11 labels" in said and "11 of these are new, 0 were read before" in said
    assert "If you stop now, about" in said and "5 audit labels" in said
    assert "stable: not yet." in said and "advice: off." in said and "the target is 90%" in said
    second = rows("next.csv")
    asked = [act for act in journal() if act["act"] == "batch"][1]["items"]
    known = [item for item in asked if item in {row["id"] for row in first}]  # audit items are not asked for again
    assert [row["id"] for row in second if row["purpose"] == "pick"] == [item for item in asked if item not in known]
    assert sum(row["purpose"] == "audit" for row in second) == len(known) and second[0]["round"] == "2"
    assert second[0]["suggestion"] in CLASSES and 0 < float(second[0]["confidence"]) <= 1
    assert not {row["id"] for row in first} & {row["id"] for row in second}
    again = run(capsys, "state=digits.labelling", "n=6")  # the open batch is given again
    assert rows("next.csv") == second and "Round 2" in again


def test_the_same_labels_give_the_same_batch_and_a_file_counts_once(photographs, at, capsys):
    known = truth(photographs)
    Path("labels.csv").write_text("".join(f"{name},{known[name]}\n" for name in list(known)[:12]))
    run(capsys, *SELECT, "labels=labels.csv")
    batch, acts = rows("next.csv"), len(journal())
    said = run(capsys, *SELECT, "labels=labels.csv")
    assert "0 of these are new, 12 were read before" in said
    assert rows("next.csv") == batch and len(journal()) == acts
    run(capsys, *SELECT, "labels=labels.csv", "state=other", "formats=[csv]")
    assert rows("next.csv") == batch


def test_the_newer_version_of_a_file_counts_and_what_was_put_right_elsewhere_stands(photographs, at, capsys):
    from alfm import ActiveLearner

    Path("labels.csv").write_text("id,label\n00.png,digit 0\n01.png,digit 1\n02.png,digit 2\n")
    run(capsys, *SELECT, "labels=labels.csv")
    ActiveLearner.load("digits.labelling").tell(["00.png"], ["digit 3"])  # on the page
    run(capsys, *SELECT, "labels=labels.csv")
    label_of = ActiveLearner.load("digits.labelling").state.label_of
    assert label_of("00.png") == "digit 3"
    Path("labels.csv").write_text("id,label\n00.png,digit 2\n01.png,?\n")
    assert "2 of these are new, 0 were read before; 1 of earlier files are not in it and stand" in run(
        capsys, *SELECT, "labels=labels.csv"
    )
    state = ActiveLearner.load("digits.labelling").state
    assert [state.label_of(f"0{n}.png") for n in range(3)] == ["digit 2", None, "digit 2"]
    assert state.all_skipped == ["01.png"]
    Path("labels.csv").write_text("id,label\n00.png,digit 0\n01.png,digit 1\n")  # back to what it said first
    run(capsys, *SELECT, "labels=labels.csv")
    state = ActiveLearner.load("digits.labelling").state
    assert [state.label_of(f"0{n}.png") for n in range(3)] == ["digit 0", "digit 1", "digit 2"]


def test_what_is_left_out_is_said_and_listed(photographs, at, capsys):
    Path("labels.csv").write_text("id,label\n00.png,digit 0\ngone.png,digit 1\n01.png,a\n01.png,b\n")
    said = run(capsys, *SELECT, "labels=labels.csv")
    assert "1 left out, no such item in the pool: 'gone.png' (row 2)" in said and "'a' and 'b'" in said
    assert [(row["where"], row["what"]) for row in rows("left_out.csv")] == [("row 2", "gone.png"), ("row 3", "01.png")]
    Path("labels.csv").write_text("id,label\n00.png,digit 0\n")
    run(capsys, *SELECT, "labels=labels.csv")
    assert not Path("left_out.csv").exists()


def test_labels_that_were_not_read_are_not_written_over(photographs, at, capsys):
    run(capsys, *SELECT)
    fill("next.csv", truth(photographs))
    said = refusal(capsys, *SELECT)
    assert "next.csv holds 6 labels that were not read" in said and "labels=next.csv" in said
    assert all(row["label"] for row in rows("next.csv"))
    run(capsys, *SELECT, "labels=next.csv", "formats=[csv,folders]")
    moved = next(Path("labelled").glob("*/*"))
    (other := Path("labelled/elsewhere")).mkdir()
    moved.rename(other / moved.name)
    assert "labelled holds 1 labels that were not read" in refusal(capsys, *SELECT, "formats=[folders]")
    said = run(capsys, *SELECT, "formats=[folders,jsonl]", "labels=labelled")
    assert "'elsewhere' is a new class" in said and Path("labelled/elsewhere").is_dir() and Path("next.jsonl").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda raw: raw.replace(b",digit ", b",dig\x81t "), "neither UTF-8 nor Windows-1252"),
        (lambda raw: raw + b"00.png\n", "the row ends before"),
        (lambda raw: re.sub(rb",digit \d", b",none", raw), "holds 6 labels"),
    ],
)
def test_a_batch_that_cannot_be_read_is_not_written_over(photographs, at, capsys, spoil, says):
    run(capsys, *SELECT)
    fill("next.csv", truth(photographs))
    raw = spoil(Path("next.csv").read_bytes())
    Path("next.csv").write_bytes(raw)
    assert says in refusal(capsys, *SELECT) and Path("next.csv").read_bytes() == raw


def test_files_of_others_stay(photographs, at, capsys):
    Path("next.html").write_text("<p>mine")
    assert "next.html is there and was not written by this command" in refusal(capsys, *SELECT)
    assert Path("next.html").read_text() == "<p>mine"
    run(capsys, *SELECT, "out=elsewhere")
    assert Path("elsewhere/next.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "cache=PATH"),
        (["cache=gone.h5"], "gone.h5"),
        (["cache=digits.h5", "labels=gone.csv"], "there is no gone.csv"),
        (["cache=digits.h5", "formats=[pdf]"], "formats"),
        (["cache=digits.h5", "n=0"], "n=0"),
        (["cache=digits.h5", "querystrategy=margins"], "query_strategy"),
        (["cache=digits.h5", "query_strategy=boss"], "boss"),
    ],
)
def test_mistakes_are_one_sentence(photographs, at, capsys, words, says):
    assert says in refusal(capsys, *words)
    assert not Path("digits.labelling").exists() and not Path("next.csv").exists()


def test_help_and_nothing_left(photographs, at, capsys):
    assert select.main(["--help"]) == 0 and predict.main(["--help"]) == 0
    assert "next.csv" in capsys.readouterr().out
    known = truth(photographs)
    Path("all.csv").write_text("".join(f"{name},{label}\n" for name, label in known.items()))
    said = run(capsys, *SELECT, "labels=all.csv")
    assert "nothing is left to ask for" in said and "Next: python -m alfm.predict state=digits.labelling" in said


def test_picks_and_audit_are_spread_among_each_other():
    picks, audit = [Item(n, f"p{n}") for n in range(6)], [Item(n, f"a{n}") for n in range(2)]
    found = [item.id for item in mixed(picks, audit)]
    assert [one for one in found if one[0] == "p"] == [f"p{n}" for n in range(6)]
    assert found.index("a0") < 4 <= found.index("a1")


# ---- predict ---------------------------------------------------------------------------------------------------------


def labelled(photographs: Path, capsys, count: int = 30) -> dict[str, str]:
    known = truth(photographs)
    Path("labels.csv").write_text("".join(f"{name},{known[name]}\n" for name in list(known)[:count]))
    run(capsys, *SELECT, "labels=labels.csv", "formats=[csv]")
    return known


def test_people_and_the_model_say_what_everything_is(photographs, at, capsys):
    known = labelled(photographs, capsys)
    assert predict.main(["state=digits.labelling", "head=head.pt"]) == 0
    said = capsys.readouterr().out
    assert "80 items of the pool, 30 as people said, 50 as the model takes them for" in said
    found = rows("predictions.csv")
    assert [row["id"] for row in found] == list(known) and {row["by"] for row in found} == {"person", "model"}
    right = [row["label"] == known[row["id"]] for row in found]
    assert all(right[:30]) and np.mean(right[30:]) > 0.8
    assert load_module("head.pt")[1] == CLASSES
    assert predict.main(["state=digits.labelling", "head=head.pt"]) == 0  # over our own
    Path("predictions.csv").write_text("mine\n")
    assert "predictions.csv is there" in refusal(capsys, "state=digits.labelling", command=predict)
    Path("mine.pt").write_text("mine")
    assert "no head of ours" in refusal(capsys, "state=digits.labelling", "head=mine.pt", command=predict)
    Path("notes.json").write_text("mine")  # where the names of its classes would stand
    assert "notes.json is there" in refusal(capsys, "state=digits.labelling", "head=notes.pt", command=predict)
    assert Path("notes.json").read_text() == "mine" and not Path("notes.pt").exists()


def test_new_items_are_embedded_once_and_predicted(photographs, at, capsys, monkeypatch):
    labelled(photographs, capsys)
    monkeypatch.setenv("FEATURE_CACHE_DIR", str(at / "features"))
    new = at / "photos"
    new.mkdir()
    for name in ("70.png", "71.png"):
        (new / f"new {name}").write_bytes((photographs / "photos" / name).read_bytes())
    (new / "00.png").write_bytes((photographs / "photos" / "00.png").read_bytes())
    words = ["state=digits.labelling", "dataset=image_folder", f"dataset.root={new}", "dataset.name=photos"]
    assert predict.main(words) == 0
    found = {row["id"]: row for row in rows("predictions.csv")}
    assert len(found) == 82 and found["new 70.png"]["by"] == "model"
    assert found["new 70.png"]["label"] == found["70.png"]["label"]
    assert found["new 70.png"]["confidence"] == found["70.png"]["confidence"]
    capsys.readouterr()
    assert predict.main(words) == 0
    assert "Embedding" not in capsys.readouterr().out
    cache = next((at / "features" / "photos").glob("*.h5"))
    assert predict.main(["state=digits.labelling", f"cache={cache}"]) == 0
    assert {row["id"] for row in rows("predictions.csv")} == set(found)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "state=FOLDER"),
        (["state=gone"], "holds no labelling state"),
        (["state=digits.labelling", "cache=gone.h5"], "gone.h5"),
        (["state=digits.labelling"], "labels of 0 classes"),
    ],
)
def test_mistakes_of_predict_are_one_sentence(photographs, at, capsys, words, says):
    run(capsys, *SELECT[:1], "formats=[csv]")
    assert says in refusal(capsys, *words, command=predict)


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_texts_and_recordings_in_every_form(modality, write_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if modality == "text":
        ids = [f"k{n}" for n in range(8)]
        Path("t.csv").write_text("id,text\n" + "".join(f'{item},"=cmd() {item}"\n' for item in ids))
        config = {"_target_": "alfm.datasets.table.table", "path": str(tmp_path / "t.csv"), "column": "text"}
        config |= {"modality": "text", "id_column": "id"}
    else:
        ids = [f"k{n}.wav" for n in range(8)]
        (tmp_path / "pool").mkdir()
        for item in ids:
            with wave.open(f"pool/{item}", "wb") as file:
                file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
                file.writeframes(bytes(1600))
        config = {"_target_": "alfm.datasets.folder.folder", "root": str(tmp_path / "pool"), "modality": "audio"}
    cache = write_cache(ids, config, modality=modality)
    words = [f"cache={cache.path}", "n=4", "query_strategy=random", "classes=[a,b]"]
    run(capsys, *words, "formats=[csv,html,label_studio,jsonl]")
    shown = "text" if modality == "text" else "path"
    assert rows("next.csv")[0][shown].startswith("'=cmd() k" if modality == "text" else str(tmp_path))
    tasks = json.loads(Path("next.label_studio.json").read_text())
    lines = [json.loads(line) for line in Path("next.jsonl").read_text().splitlines()]
    asked = [row["id"] for row in rows("next.csv")]
    assert asked == [task["data"]["alfm_id"] for task in tasks] == [line["meta"]["alfm_id"] for line in lines]
    assert modality in tasks[0]["data"] and modality in lines[0]
    answers = [line | {"accept": ["a"], "answer": "accept"} for line in lines]
    Path("answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    assert "4 of these are new" in run(capsys, *words, "labels=answers.jsonl")
