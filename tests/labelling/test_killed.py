"""Work outlives a kill -9 in the middle of it: see `benchmarks/kill_labelling.py`, which does it more often."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture
def kill_labelling():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_labelling.py"
    spec = importlib.util.spec_from_file_location("kill_labelling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process has no others
    yield module
    torch.set_num_threads(threads)


def test_no_label_is_lost_and_none_counts_twice(kill_labelling, tmp_path):
    assert sum(kill_labelling.run(tmp_path, kills=4, seed=1).values()) == 4
