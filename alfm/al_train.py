"""Stage 2: `python -m alfm.al_train`, active-learning rounds on a feature cache."""

from __future__ import annotations

import os
import sys

from alfm.config.hydra import run_hydra
from alfm.engines.launched import run_launched
from alfm.engines.local import Local

ABOUT = """Run active-learning rounds on cached features: which items would each query strategy have labelled, and how
good is the classifier after each round? Every setting is one of Hydra's: key=value, group=option, -m for sweeps."""

TASK = "alfm.simulation.session.Training"


ADDED = "reference_added"
"""In a run's configuration, outside its hash: nobody asked for it, a sweep was given it."""


def with_random(cells: list[list[str]]) -> tuple[list[list[str]], str]:
    """A sweep over several query strategies with `random` among them, beside every other setting once; and a sentence
    about it where it was missing."""
    chosen = [word.partition("=")[2] for words in cells for word in words if word.startswith("query_strategy=")]
    if len(set(chosen)) < 2 or {"random", "replay"} & set(chosen):
        return cells, ""
    rest = [[word for word in words if not word.lstrip("+~").startswith("query_strategy")] for words in cells]
    others = dict.fromkeys(map(tuple, rest))
    added = [["query_strategy=random", *words, f"+{ADDED}=true"] for words in others]
    return [*cells, *added], "This sweep had no random to compare with: query_strategy=random is added."


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 (a mistake or a failed job) or 2 (a wrong command line)."""
    return run_hydra("al_train", TASK, Local().run, about=ABOUT, argv=argv, complete=with_random, launch=run_launched)


if __name__ == "__main__":
    # torch's threads shall not spin while replicates run side by side on all cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
