"""`python -m alfm.select`: which items of a pool a person should label next."""

from __future__ import annotations

import sys

from alfm.config.hydra import run_hydra
from alfm.engines.local import Local

ABOUT = """Read what people have labelled of a pool, and write what they should label next: next.csv to fill in,
next.html to look at, tasks for Label Studio and others. What was said and asked is kept in a folder (state=), so that
the next call goes on. Every setting is one of Hydra's: key=value, group=option."""

TASK = "alfm.labelling.selecting.Selecting"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 (a mistake) or 2 (a wrong command line)."""
    return run_hydra("select", TASK, Local().run, about=ABOUT, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
