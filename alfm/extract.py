"""Stage 1: embed a data set with a frozen backbone, into one feature cache.

    python -m alfm.extract dataset=digits model=pixels
    python -m alfm.extract -m dataset=cifar10,dtd model=dino_vit_S14,openclip_vit_B16

An interrupted run goes on where it was when the same command is given again. Any number of processes and hosts may run
the same command at once: they divide the work.
"""

from __future__ import annotations

import os
import sys

from alfm.config.hydra import run_hydra
from alfm.engines.launched import run_launched
from alfm.engines.local import Local

TASK = "alfm.extraction.session.Extraction"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_hydra("extract", TASK, Local().run, about=__doc__ or "", argv=argv, launch=run_launched)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and forked readers do not mix
    # threads that wait for each other shall not spin: readers and other jobs need the cores (several times faster then)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
