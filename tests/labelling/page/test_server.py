"""What the page is told, and what becomes of what it tells."""

from __future__ import annotations

import errno
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_pool import CLASSES, SCRIPT, Desks, N, client_of
from starlette.testclient import TestClient

from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.page.desk import Desk
from alfm.labelling.page.security import HEADER, Access
from alfm.labelling.page.server import STATIC


def act(row: int, label: str | None = "calm", kind: str = "label", revision: int = 0, name: str = "") -> dict[str, Any]:
    return {
        "id": name or f"act-{row}-{kind}-{label}-{revision}",
        "act": kind,
        "row": row,
        "label": label,
        "revision": revision,
    }


def post(client: TestClient, *acts: dict[str, Any], by: str = "me") -> Any:
    return client.post("/api/acts", json={"by": by, "acts": list(acts)})


def revision(desk: Desk, row: int) -> int:
    return desk.revision(row)


@pytest.fixture
def desk(make_desk: Desks) -> Desk:
    return make_desk()


@pytest.fixture
def client(desk: Desk, access: Access) -> TestClient:
    return client_of(desk, access)


def acts_in(desk: Desk) -> list[dict[str, Any]]:
    assert desk.learner.journal is not None
    return [json.loads(line) for line in desk.learner.journal.path.read_text().splitlines()]


def test_a_label_is_in_the_journal_when_it_is_confirmed(client, desk):
    answer = post(client, act(3, "rain"))
    assert answer.status_code == 200
    assert answer.json()["items"][0] | {"votes": None} == {
        "row": 3, "id": "003.txt", "text": "Weather note 3", "cut": False, "label": "rain", "votes": None,
        "skipped": False, "rejected": [], "suggestion": None, "confidence": None, "purpose": "own",
        "revision": revision(desk, 3),
    }  # fmt: skip
    last = acts_in(desk)[-1]
    assert (last["act"], last["item"], last["label"], last["by"]) == ("label", "003.txt", "rain", "me")


def test_the_same_act_twice_counts_once(client, desk):
    one = act(3, "rain")
    before = len(acts_in(desk))
    assert [post(client, one).status_code for _ in range(3)] == [200, 200, 200]
    assert len(acts_in(desk)) == before + 1


def test_a_stale_act_is_not_taken_and_answered_with_what_is(client, desk):
    assert post(client, act(3, "rain"), by="ann").status_code == 200
    answer = post(client, act(5, "snow"), act(3, "snow"), by="ben")
    assert answer.status_code == 409
    assert "changed elsewhere" in answer.json()["error"]
    assert [(item["row"], item["label"]) for item in answer.json()["items"]] == [(5, None), (3, "rain")]
    now = answer.json()["items"][1]["revision"]
    assert post(client, act(3, "snow", revision=now), by="ben").json()["items"][0]["votes"] == {
        "ann": "rain",
        "ben": "snow",
    }
    assert desk.learner.state.label_of("003.txt") is None  # a tie


def test_several_acts_of_one_kind_and_of_several(client, desk):
    assert post(client, *(act(row, CLASSES[row % 3]) for row in range(9))).status_code == 200
    assert desk.learner.status().by_class == {"calm": 3, "rain": 3, "snow": 3}
    now = [revision(desk, row) for row in range(3)]
    answer = post(client, act(0, None, "skip", now[0]), act(1, "rain", "reject", now[1]), act(2, None, "clear", now[2]))
    items = answer.json()["items"]
    assert [item["label"] for item in items] == [None, None, None]
    assert items[0]["skipped"] and items[1]["rejected"] == ["rain"]


def test_undo_is_remembered_over_a_reload(client):
    post(client, act(1, "rain"))
    answer = post(client, act(2, "snow")).json()
    assert answer["undo"] == [{"row": row, "before": {"act": "clear", "label": None}} for row in (1, 2)]
    back = act(2, None, "clear", answer["items"][0]["revision"]) | {"undo": True}
    assert [one["row"] for one in post(client, back).json()["undo"]] == [1]
    assert [one["row"] for one in client.get("/api/standing?by=me").json()["undo"]] == [1]
    assert client.get("/api/standing?by=ann").json()["undo"] == []


def test_a_batch_is_asked_in_order_and_stays_as_it_is_while_the_model_is_refitted(desk, access):
    client = client_of(desk, access)
    desk.start()
    assert desk.worker.wait()
    first = client.get("/api/standing").json()
    rows = [item["row"] for item in first["queue"]]
    assert (len(rows), first["batch"]) == (5, {"round": 1, "n": 5, "left": 5})
    assert {item["purpose"] for item in first["queue"]} == {"pick"}
    for place, row in enumerate(rows[:4]):
        answer = post(client, act(row, CLASSES[place % 2])).json()
        assert [item["row"] for item in answer["queue"]] == rows[place + 1 :]
        assert desk.worker.wait()
    assert client.get("/api/standing").json()["queue"][0]["suggestion"] in CLASSES  # it was refitted all the same
    post(client, act(rows[4], None, "skip"))
    assert desk.worker.wait()
    now = client.get("/api/standing").json()
    assert now["batch"] == {"round": 2, "n": 5, "left": 5} and now["strategy"] == "margins"
    assert not {item["row"] for item in now["queue"]} & set(rows)


def test_a_half_answered_batch_goes_on_after_a_restart(make_desk, access):
    desk = make_desk()
    desk.start()
    assert desk.worker.wait()
    rows = [row for row, _ in desk.queue(9)]
    post(client_of(desk, access), act(rows[0]), act(rows[1], "rain"))
    assert desk.worker.wait()
    desk.close()
    again = make_desk()
    again.start()
    assert again.worker.wait()
    assert [row for row, _ in again.queue(9)] == rows[2:]
    assert again.suggested is not None


def test_audit_items_come_between_and_are_no_training(make_desk, access):
    desk = make_desk(audit=3)
    desk.start()
    assert desk.worker.wait()
    purposes = [purpose for _, purpose in desk.queue(20)]
    assert purposes == ["pick", "pick", "audit", "pick", "pick", "audit", "pick", "audit"]
    row = next(row for row, purpose in desk.queue(20) if purpose == "audit")
    post(client_of(desk, access), act(row))
    assert not desk.learner.state.training


def test_while_a_batch_takes_long_audit_and_random_items_are_asked(make_desk, monkeypatch):
    go = threading.Event()
    desk = make_desk(audit=2)
    real = desk.learner.ask
    monkeypatch.setattr(desk.learner, "ask", lambda n: go.wait(20) and real(n))
    monkeypatch.setattr("alfm.labelling.page.desk.PATIENCE", 0.0)
    desk.start()
    while (busy := desk.worker.busy_with()) is None or busy[0] != "batch":
        pass
    found = desk.queue(6)
    assert [purpose for _, purpose in found] == ["audit"] * 2 + ["random"] * 4
    assert len({row for row, _ in found}) == 6
    go.set()
    assert desk.worker.wait()
    assert [purpose for _, purpose in desk.queue(2)] == ["pick", "pick"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not understood"),
        (b"[1]", "not understood"),
        (b'{"by": "me", "acts": []}', "acts"),
        ({"by": "me", "acts": [act(0)], "path": "/etc/passwd"}, "path"),
        ({"by": "me", "acts": [act(N)]}, "rows are 0 to 59"),
        ({"by": "me", "acts": [act(-1)]}, "rows are 0 to 59"),
        ({"by": "me", "acts": [act(0, None)]}, "name a class"),
        ({"by": "me", "acts": [act(0, "calm", "skip")]}, "name a class"),
        ({"by": "me", "acts": [act(0, "  ")]}, "label"),
        ({"by": "me", "acts": [act(0, "x" * 201, name="a-long-one")]}, "200"),
        ({"by": "me", "acts": [act(0, kind="settings")]}, "act"),
        ({"by": "a\nb", "acts": [act(0)]}, "annotator"),
        ({"by": " ", "acts": [act(0)]}, "annotator"),
        ({"by": "me", "acts": [act(0) | {"row": "0"}]}, "row"),
    ],
    ids=str,
)
def test_what_is_no_act_is_refused_in_a_sentence_and_changes_nothing(client, desk, body, says):
    before = len(acts_in(desk))
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = client.post("/api/acts", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert len(acts_in(desk)) == before


def test_only_json_is_taken(client):
    assert client.post("/api/acts", content=b"by=me", headers={"content-type": "text/plain"}).status_code == 415


def test_a_full_disk_is_one_sentence_and_nothing_is_acknowledged(client, desk, monkeypatch):
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        answer = post(client, act(3, "rain"))
    assert answer.status_code == 400
    assert "No space left" in answer.json()["error"]
    assert client.get("/api/items?rows=3").json()["items"][0]["label"] is None
    assert client.get("/api/standing").json()["undo"] == []
    assert post(client, act(3, "rain")).json()["items"][0]["label"] == "rain"  # the same act, when there is room


def test_texts_are_data_and_nothing_else(client):
    answer = client.get("/api/items?rows=7")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["items"][0]["text"] == SCRIPT
    source = client.get("/static/page.js").text
    assert not [
        word for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(") if word in source
    ]
    assert "style=" not in client.get("/").text and "onclick=" not in client.get("/").text


def test_pictures_are_made_anew(make_desk, access):
    desk = make_desk("image")
    client = client_of(desk, access)
    answer = client.get("/item/5/image/320")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"].startswith("private")
    assert client.get("/item/5/image/321").status_code == 404
    for path in ("/item/60/image/320", "/item/5/sound"):
        assert client.get(path).status_code >= 400
    for path in ("/item/-1/image/320", "/item/..%2f..%2fetc%2fpasswd/image/320", "/static/..%2fserver.py", "/static/x"):
        answer = client.get(path)
        assert answer.status_code == 404 and "import" not in answer.text


@pytest.mark.parametrize("content", [f"<svg xmlns='http://www.w3.org/2000/svg'>{SCRIPT}</svg>", f"<html>{SCRIPT}"])
def test_what_a_browser_would_run_is_never_sent(make_desk, access, tmp_path, content):
    desk = make_desk("image")
    (tmp_path / "photos" / "005.png").write_text(content)
    answer = client_of(desk, access).get("/item/5/image/320")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert "005.png" in answer.json()["error"] and "script" not in answer.text


def test_a_missing_file_is_named(make_desk, access, tmp_path):
    desk = make_desk("image")
    (tmp_path / "photos" / "005.png").unlink()
    answer = client_of(desk, access).get("/item/5/image/320")
    assert answer.status_code == 400 and "005.png" in answer.json()["error"]


def test_lists(client, desk):
    def rows(query: str) -> list[int]:
        return client.get(f"/api/list?{query}").json()["rows"]

    post(client, *(act(row, CLASSES[row % 3]) for row in range(6)), act(9, None, "skip"))
    desk.start()
    assert desk.worker.wait()
    assert rows("which=labelled") == [0, 1, 2, 3, 4, 5]
    assert rows("which=labelled&sort=label&label=") == [0, 3, 1, 4, 2, 5]
    assert rows("which=labelled&label=rain") == [1, 4]
    assert rows("which=skipped") == [9] and len(rows("which=unlabelled")) == N - 7 and len(rows("which=all")) == N
    assert rows("which=all&words=NOTE+12") == [12] and rows("which=all&words=012.t") == [12]
    assert desk.suggested is not None
    sure = desk.suggested.confidence
    assert rows("which=all&sort=confidence") == sorted(range(N), key=lambda row: (sure[row], row))
    found = rows("which=all&sort=suggestion")
    assert [desk.suggested.labels[row] for row in found] == sorted(desk.suggested.labels)
    post(client, act(0, "snow", revision=revision(desk, 0)), by="ann")
    assert rows("which=ties") == [0]
    for query in ("which=paths", "which=all&sort=x", "which=like&rows=", "which=like&rows=99", "which=like&rows=a"):
        assert client.get(f"/api/list?{query}").status_code == 400


def test_more_like_these_and_near_duplicates(client, desk):
    features = desk.learner.features.unit.rows(torch.arange(N)).numpy()
    cosine = features @ features[4]
    order = [row for row in np.argsort(-cosine, kind="stable").tolist() if row != 4]
    assert client.get("/api/list?which=like&rows=4").json()["rows"][:10] == order[:10]
    post(client, act(order[0]))
    assert (
        client.get("/api/list?which=like&rows=4").json()["rows"][:9] == order[1:10]
    )  # what is labelled is not offered
    varied = client.get("/api/list?which=varied&rows=4,5").json()["rows"]
    assert len(varied) == len(set(varied)) == 48 and not {4, 5, order[0]} & set(varied)
    twins = client.get("/api/duplicates/4").json()["items"]
    assert [item["row"] for item in twins] == [row for row in order[1:] if cosine[row] >= 0.98]


def test_classes_are_added_renamed_and_merged(client, desk):
    def change(**what: Any) -> Any:
        return client.post("/api/classes", json={"by": "me"} | what)

    post(client, act(0, "rain"), act(1, "fog"))
    assert change(add="hail").json()["classes"] == [*CLASSES, "hail", "fog"]
    assert change(rename=["fog", "mist"]).json()["balance"]["mist"] == 1
    assert change(merge=[["mist", "hail"], "rain"]).json()["balance"] == {"calm": 0, "rain": 2, "snow": 0}
    assert change(rename=["nothing", "x"]).status_code == 400
    assert change().status_code == 400


def test_what_another_command_wrote_is_seen(client, desk):
    version = client.get("/api/standing").json()["version"]
    assert client.get(f"/api/standing?version={version}").json() == {"version": version}
    other = ActiveLearner.load(desk.learner.journal.folder)
    other.tell(["005.txt"], ["snow"], by="script")
    assert client.get(f"/api/standing?version={version}").json()["labelled"] == 1
    assert post(client, act(5, "rain")).status_code == 409


def test_hello_needs_the_secret(desk, access):
    client = client_of(desk, access)
    assert client.get("/api/hello").json()["secret"] == access.secret
    assert client.get("/api/hello", headers={HEADER: "x"}).status_code == 403


def test_the_static_files_are_there_as_they_are_named(client):
    static = Path(__file__).parents[3] / "alfm/labelling/page/static"
    assert {path.name for path in static.iterdir()} == set(STATIC)
    for name, kind in STATIC.items():
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"] == kind


def test_an_id_with_half_a_character(make_desk, access, monkeypatch):
    desk = make_desk()
    monkeypatch.setattr(desk, "text", lambda row: "half \udce9")
    assert client_of(desk, access).get("/api/items?rows=1").json()["items"][0]["text"] == "half \udce9"


def test_a_picture_is_of_the_file_it_names(make_desk, access, tmp_path):
    desk = make_desk("image")
    content = client_of(desk, access).get("/item/50/image/160").content
    red = Image.open(io.BytesIO(content)).convert("RGB").getpixel((10, 10))[0]
    assert abs(red - 200) < 8


def test_a_pool_that_grows_meanwhile(make_desk, access, write_cache, tmp_path):
    desk = make_desk("image")
    client = client_of(desk, access)
    assert client.get("/api/standing").json()["pool"] == N
    desk.learner.tell([0, 1], ["a", "b"])
    desk._refit()
    write_cache(["new.png"], name="b.h5", modality="image")
    ActiveLearner.load(desk.learner.journal.folder, [tmp_path / "a.h5", tmp_path / "b.h5"])
    assert client.get("/api/standing").json()["pool"] == N + 1
    new = client.get(f"/api/items?rows={N}").json()["items"][0]
    assert new["id"] == "new.png" and new["suggestion"] is None  # the head has not seen it yet
    assert client.get("/api/list?sort=confidence").json()["total"] == N - 1
    desk.start()
    assert desk.worker.wait() and not desk.worker.trouble
    assert len(desk.queue(5)) == 5


def test_nothing_is_taken_in_while_the_page_reads(desk):
    """The background thread hears of other commands' labels too: what is being gone through must not change."""
    with desk.reading():
        other = threading.Thread(target=desk.learner.refresh)
        other.start()
        other.join(0.2)
        assert other.is_alive()
    other.join()


def test_votes_that_tie_are_asked_of_whoever_has_not_voted(desk, client):
    desk.start()
    assert desk.worker.wait()
    row = desk.queue(1)[0][0]
    post(client, act(row, CLASSES[0]), by="ann")
    assert row not in [one for one, _ in desk.queue(50, "bob")]
    post(client, act(row, CLASSES[1], revision=revision(desk, row)), by="bob")
    for by in ("ann", "bob"):
        assert row not in [one for one, _ in desk.queue(50, by)]
    assert client.get("/api/standing?by=eve").json()["queue"][0]["row"] == row
    post(client, act(row, CLASSES[1], revision=revision(desk, row)), by="eve")
    assert desk.learner.state.label_of(desk.id(row)) == CLASSES[1]
    assert row not in [one for one, _ in desk.queue(50, "eve")]
