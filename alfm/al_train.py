"""Stage 2: `python -m alfm.al_train`, active-learning rounds on a feature cache."""

from __future__ import annotations

import os
import sys

from alfm.config.hydra import run_hydra
from alfm.engines.local import Local

ABOUT = """Run active-learning rounds on cached features: which items would each query strategy have labelled, and how
good is the classifier after each round? Every setting is one of Hydra's: key=value, group=option, -m for sweeps."""

TASK = "alfm.simulation.session.Training"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 (a mistake or a failed job) or 2 (a wrong command line)."""
    return run_hydra("al_train", TASK, Local().run, about=ABOUT, argv=argv)


if __name__ == "__main__":
    # torch's threads shall not spin while replicates run side by side on all cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
