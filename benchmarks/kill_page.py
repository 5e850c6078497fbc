"""Kill the labelling page at random moments, with `kill -9`, while an annotator's labels are posted to it.

    python benchmarks/kill_page.py --kills 20

A client posts labels one after the other as the page does: each act has an identifier, and one whose answer did not
arrive is posted again until it does. The server is killed at a random moment, in or between posts, fits and making
batches, and started again. In the end every label that was confirmed must be in the journal, each act once, each item
with the last label that was said of it; the journal must be read without complaint by whoever opens it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import tempfile
import threading
import time
import uuid
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import h5py
import numpy as np
import uvicorn  # noqa: F401  (the servers that are forked have it)

from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.journal import Journal
from alfm.labelling.page.desk import Desk
from alfm.labelling.page.security import HEADER, Access
from alfm.labelling.page.server import Server  # noqa: F401
from alfm.labelling.page.session import bound, run_server

N, SECRET = 400, "of this run"


def pool(folder: Path) -> Path:
    """A cache of items without labels."""
    features = np.random.default_rng(0).normal(size=(N, 16)).astype(np.float16)
    with h5py.File(folder / "pool.h5", "w") as file:
        file["train/features"], file["train/labels"] = features, np.full(N, -1)
    return folder / "pool.h5"


def start(cache: Path, state: Path, port: int) -> int:
    """Fork a server, and give its process id. Killing one that imports torch shows little."""
    pid = os.fork()
    if pid == 0:
        try:
            if Journal.there(state):
                learner = ActiveLearner.load(state)
            else:
                learner = ActiveLearner(cache, query_strategy="margins", folder=state, classes=["a", "b", "c"])
                learner.audit(20)
            desk = Desk(learner, n=10)
            access = Access(frozenset({"127.0.0.1"}), SECRET, "kill")
            with bound("127.0.0.1", port) as listening:
                run_server(desk, listening, access, "me")
        finally:
            os._exit(70)
    return pid


class Annotator(threading.Thread):
    """Posts labels until it is told to end. said: row -> the last label that was confirmed; acts: their identifiers."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.port, self.rng = port, random.Random(seed)
        self.said: dict[int, str | None] = {}
        self.acts: list[str] = []
        self.repeated = 0
        self.ending = False

    def run(self) -> None:
        """Until `ending`; what is being said then is said to the end."""
        revisions: dict[int, int] = {}
        while not self.ending:
            row, label = self.rng.randrange(N), self.rng.choice(["a", "b", "c", None])
            act = {"id": str(uuid.uuid4()), "act": "label" if label else "skip", "row": row, "label": label}
            while True:
                found = self._post(act | {"revision": revisions.get(row, 0)})
                if found is None:  # nobody there, or gone before the answer: the same act again
                    self.repeated += 1
                    time.sleep(0.01)
                    continue
                status, answer = found
                revisions |= {item["row"]: item["revision"] for item in answer.get("items", ())}
                if status == 200:
                    break
                if status != 409:
                    raise SystemExit(f"refused: {status} {answer}")
            self.acts.append(act["id"])
            self.said[row] = label

    def _post(self, act: dict[str, object]) -> tuple[int, dict[str, object]] | None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            body = json.dumps({"by": "me", "acts": [act]})
            connection.request("POST", "/api/acts", body, {HEADER: SECRET, "content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, HTTPException, ValueError):
            return None
        finally:
            connection.close()


def torment(folder: Path, kills: int, longest: float = 1.5, seed: int = 0) -> str:
    """`kills` kills of the server at random moments; what happened, in a sentence. `SystemExit` for a label lost."""
    rng = random.Random(seed)
    cache, state = pool(folder), folder / "state"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    annotator = Annotator(port, seed)
    annotator.start()
    killed = 0
    while killed < kills:
        pid = start(cache, state, port)
        had = len(annotator.acts)
        while len(annotator.acts) == had:  # it is there
            time.sleep(0.005)
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise SystemExit("the server ended by itself")
        time.sleep(rng.random() * longest)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += 1
    pid = start(cache, state, port)
    annotator.ending = True
    annotator.join(60)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    check(state, annotator)
    return (
        f"{killed} kills: {len(annotator.acts)} acts confirmed on {len(annotator.said)} items, "
        f"{annotator.repeated} posts repeated; none lost, none twice."
    )


def check(state: Path, annotator: Annotator) -> None:
    """`SystemExit` unless the state is what the annotator was told that it is."""
    acts = [act["id"] for _, act in Journal(state).news() if act["act"] in ("label", "skip")]
    if sorted(acts) != sorted(annotator.acts):
        lost, more = set(annotator.acts) - set(acts), len(acts) - len(set(acts))
        raise SystemExit(f"{len(lost)} acts lost, {more} twice, {len(set(acts) - set(annotator.acts))} unknown")
    found = ActiveLearner.load(state).state
    for row, label in annotator.said.items():
        if found.label_of(str(row)) != label or found.skipped(str(row)) != (label is None):
            raise SystemExit(f"item {row}: {found.label_of(str(row))!r} is known, {label!r} was confirmed last")


def main() -> None:
    """Prints what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=1.5, help="seconds that a server lives at most")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(torment(Path(folder), given.kills, given.longest))


if __name__ == "__main__":
    main()
