"""Jobs side by side: results in order, one thread each, the caller's setting restored."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from alfm.threads import side_by_side

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_order_and_thread_counts() -> None:
    def job(i: int) -> tuple[int, int, str]:
        time.sleep(0.02 * (3 - i))
        nested = side_by_side([torch.get_num_threads, threading.get_ident], CPU)
        assert nested[1] == threading.get_ident()  # inside a job, jobs run one after the other
        return i, nested[0], threading.current_thread().name

    results = side_by_side([lambda i=i: job(i) for i in range(4)], CPU)
    assert [r[0] for r in results] == [0, 1, 2, 3]
    assert {r[1] for r in results} == {1}
    assert len({r[2] for r in results}) == 2
    assert torch.get_num_threads() == 2


def test_errors_reach_the_caller_and_the_setting_is_restored() -> None:
    def broken() -> None:
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        side_by_side([lambda: None, broken], CPU)
    assert torch.get_num_threads() == 2
    assert side_by_side([], CPU) == []
