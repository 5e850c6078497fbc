"""kill -9 at random moments while labels are told and batches asked for: no label is lost, none counts twice.

    python benchmarks/kill_labelling.py [--kills 20] [--seed 0]

An annotator who knows the digits labels them through `alfm.ActiveLearner`, one act at a time. They note what they are
about to say before they say it, and that it was taken when `tell` has returned. After each kill they begin anew, and
say again, with the same identifiers, what they do not know to have been taken. In the end the labels and all batches
must be those of an annotator whom nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import torch
from sklearn.datasets import load_digits

from alfm import ActiveLearner

ROUNDS, BATCH = 6, 10


class Notes:
    """What the annotator writes down, line by line, in a file that outlives them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, *words: str) -> None:
        os.write(self._file, (" ".join(words) + "\n").encode())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()]

    def untaken(self) -> list[str]:
        """Items that were to be told and may not have been."""
        taken = {words[1] for words in self.lines() if words[0] == "told"}
        return [words[1] for words in self.lines() if words[0] == "tell" and words[1] not in taken]


def annotate(folder: Path, cache: Path, truth: list[str], notes: Notes) -> None:
    """Label until the last round is answered, from wherever the folder stands."""
    begun = (folder / "journal.jsonl").exists() and (folder / "journal.jsonl").stat().st_size > 0
    how = {"query_strategy": "badge", "labels_in_cache": "ignore", "seed": 5}
    learner = ActiveLearner.load(folder) if begun else ActiveLearner(cache, folder=folder, **how)
    for item in notes.untaken():
        say(learner, item, truth, notes)
    while True:
        notes.write("ask")
        items = learner.batch() or (learner.ask(BATCH) if learner.state.round < ROUNDS else [])
        notes.write("asked")
        if not items:
            return
        for item in items:
            say(learner, item.id, truth, notes)


def say(learner: ActiveLearner, item: str, truth: list[str], notes: Notes) -> None:
    """Tell one item, under an identifier that is the same whenever it is told."""
    notes.write("tell", item)
    learner.tell([item], [truth[int(item)]], acts=[f"label-{item}"])
    notes.write("told", item)


def start(folder: Path, cache: Path, truth: list[str], notes: Notes) -> int:
    """The annotator in a process of their own: its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)  # a forked process has none of the others
            annotate(folder, cache, truth, notes)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def check(folder: Path, notes: Notes) -> None:
    """What was taken is in the journal, and nothing is there twice; raises AssertionError."""
    text = (folder / "journal.jsonl").read_bytes() if (folder / "journal.jsonl").exists() else b""
    lines = text.split(b"\n")[:-1]
    counts = Counter(json.loads(line)["id"] for line in lines)
    lost = [words[1] for words in notes.lines() if words[0] == "told" and f"label-{words[1]}" not in counts]
    assert not lost, f"lost: {lost}"
    assert not counts or max(counts.values()) == 1, f"twice: {counts.most_common(3)}"


def undisturbed(folder: Path, cache: Path, truth: list[str]) -> tuple[dict[str, dict[str, str]], list[tuple[str, ...]]]:
    """Labels and batches of an annotator whom nobody kills."""
    annotate(folder, cache, truth, Notes(folder.with_suffix(".notes")))
    return outcome(folder)


def outcome(folder: Path) -> tuple[dict[str, dict[str, str]], list[tuple[str, ...]]]:
    """Who said what, and all batches."""
    state = ActiveLearner.load(folder).state
    return state.votes, [batch.items for batch in state.batches]


def digits_pool(path: Path) -> list[str]:
    """A cache of 500 digits, and what they are."""
    x, y = load_digits(return_X_y=True)
    with h5py.File(path, "w") as file:
        file.attrs["class_names"] = list(map(str, range(10)))
        file["train/features"], file["train/labels"] = (x[:500] / 16).astype(np.float32), y[:500]
    return list(map(str, y[:500]))


def run(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill so many times, checking after each; how often it fell in an ask, in a tell, or between them."""
    rng, moments = random.Random(seed), Counter[str]()
    cache = folder / "digits.h5"
    truth = digits_pool(cache)
    began = time.perf_counter()
    expected = undisturbed(folder / "undisturbed", cache, truth)
    whole = time.perf_counter() - began
    session = 0
    while sum(moments.values()) < kills:
        session += 1
        state, notes = folder / f"state{session}", Notes(folder / f"notes{session}")
        done = False
        while not done:
            child = start(state, cache, truth, notes)
            if sum(moments.values()) < kills:
                time.sleep(rng.uniform(0, whole / 2))
                done = os.waitpid(child, os.WNOHANG)[0] == child
                if not done:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    last = notes.lines()[-1][0] if notes.lines() else "start"
                    moments[{"ask": "in an ask", "tell": "in a tell"}.get(last, "between")] += 1
            else:
                done = os.waitpid(child, 0)[1] == 0
                assert done, "the annotator failed"
            check(state, notes)
        assert outcome(state) == expected, f"{state} differs from what an undisturbed annotator leaves"
    return moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        moments = run(Path(folder), arguments.kills, arguments.seed)
    print(f"{sum(moments.values())} kills: {dict(moments)}; no label lost, none twice, all batches as undisturbed")


if __name__ == "__main__":
    main()
