"""Jobs side by side: results in order, one thread each, the caller's setting restored."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping

import pytest
import torch

from alfm.threads import asking_together, at_once, each_of, side_by_side

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


def test_a_lone_job_leaves_the_cores_to_its_own_jobs() -> None:
    def job() -> tuple[int, set[int], set[int]]:
        def inner() -> int:
            time.sleep(0.02)
            assert torch.get_num_threads() == 1
            return threading.get_ident()

        return torch.get_num_threads(), set(side_by_side([inner] * 4, CPU)), set(side_by_side([inner] * 1, CPU))

    threads, several, one = side_by_side([job], CPU)[0]
    assert threads == 1 and len(several) == 2 and one == {threading.get_ident()}
    assert at_once(5, CPU) == 2 and torch.get_num_threads() == 2


def test_errors_reach_the_caller_and_the_setting_is_restored() -> None:
    def broken() -> None:
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        side_by_side([lambda: None, broken], CPU)
    assert torch.get_num_threads() == 2
    assert side_by_side([], CPU) == []


def test_items_are_worked_on_in_order_and_few_are_held() -> None:
    def given() -> Iterator[int]:
        for i in range(7):
            asked.append(i)
            yield i

    for device, held in ((CPU, 3), (torch.device("cuda"), 1)):  # nothing is put there
        asked: list[int] = []
        seen = each_of(given(), lambda i: i * i, device, ahead=3)
        assert next(seen) == (0, 0) and asked == list(range(held))
        assert list(seen) == [(i, i * i) for i in range(1, 7)]
        assert at_once(7, device) == min(held, 2) and at_once(1, device) == 1


def test_jobs_that_ask_are_answered_together_until_the_last_has_ended() -> None:
    def job(most: int) -> Generator[int, int, list[int]]:
        heard = []
        for number in range(most):
            heard.append((yield number))
        return heard

    asked: list[dict[int, int]] = []

    def answer(questions: Mapping[int, int]) -> list[int]:
        asked.append(dict(questions))
        return [10 * place + number for place, number in questions.items()]

    assert asking_together([job(1), job(3), job(2)], answer) == [[0], [10, 11, 12], [20, 21]]
    assert asked == [{0: 0, 1: 0, 2: 0}, {1: 1, 2: 1}, {1: 2}]
