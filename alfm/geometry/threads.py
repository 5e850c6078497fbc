"""One thread for loops of small products.

A product of a few million operations gains nothing from a second thread, but waits for it: on a machine that does
anything else besides, each wait can cost a scheduler's slice (measured here: 6 ms of draws became 100 ms).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's CPU operations on one thread inside, as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
