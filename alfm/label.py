"""`python -m alfm.label`: a page on this machine where people label the pool of a feature cache."""

from __future__ import annotations

import os
import sys

from alfm.config.hydra import run_hydra
from alfm.engines.local import Local

ABOUT = """Label the items of a feature cache in the browser: the page asks for those from which a classifier learns
most, suggests classes, and says how good it is by now. Labels are written down at once; the same command goes on."""

TASK = "alfm.labelling.page.session.Page"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 after Ctrl-C, 1 (a mistake) or 2 (a wrong command line)."""
    return run_hydra("label", TASK, Local().run, about=ABOUT, argv=argv)


if __name__ == "__main__":
    # torch's threads shall not spin while replicates run side by side on all cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
