"""`python -m alfm.predict`: the class of every item of a labelled pool, and of new items."""

from __future__ import annotations

import sys

from alfm.config.hydra import run_hydra
from alfm.engines.local import Local

ABOUT = """Write predictions.csv: what every item of a labelled pool is, as people said or else as the model takes it
for, and of new items too (cache= or dataset=, embedded with the pool's backbone where they are not yet). head=FILE
writes the head itself. Every setting is one of Hydra's: key=value, group=option."""

TASK = "alfm.labelling.predicting.Predicting"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 (a mistake) or 2 (a wrong command line)."""
    return run_hydra("predict", TASK, Local().run, about=ABOUT, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
