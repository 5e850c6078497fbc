"""One thread for all that takes long, so that labelling never waits: the most urgent job that is wanted comes first."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from alfm.errors import UserError, say

T = TypeVar("T")
NICE = 5


class Worker:
    """Runs named jobs, one at a time. A job that is wanted again while it runs runs once more, not once for each.

    jobs: name -> what to do, the most urgent first. trouble: the sentence with which a job failed last, by its name,
    until it succeeds. A failure that is no user's mistake is told on standard error too.
    """

    def __init__(self, jobs: Mapping[str, Callable[[], None]]) -> None:
        self._jobs = {"calls": self._answer, **jobs}
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._wanted: set[str] = set()
        self._woken = threading.Condition()
        self._ending = False
        self._running: tuple[str, float] | None = None
        self.trouble: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="alfm page", daemon=True)

    def start(self) -> None:
        """Begins; call it once."""
        self._thread.start()

    def want(self, *names: str) -> None:
        """Has jobs done soon."""
        with self._woken:
            self._wanted.update(names)
            self._woken.notify_all()

    def call(self, fn: Callable[[], T]) -> T:
        """What a function returns or raises, called in the thread: before all that waits, after what runs."""
        answer: Future[Any] = Future()
        self._calls.put((fn, answer))
        self.want("calls")
        return answer.result()

    def busy_with(self) -> tuple[str, float] | None:
        """What runs now, and for how many seconds it has."""
        running = self._running
        return None if running is None else (running[0], time.monotonic() - running[1])

    def pending(self, name: str) -> bool:
        """Whether a job waits or runs."""
        with self._woken:
            return name in self._wanted or (self._running is not None and self._running[0] == name)

    def wait(self, seconds: float = 60) -> bool:
        """Whether there was nothing left to do within that time."""
        with self._woken:
            return self._woken.wait_for(lambda: not self._wanted and self._running is None, seconds)

    def close(self, seconds: float = 2) -> bool:
        """No further job; the one that runs is given some time. Whether it ended."""
        with self._woken:
            self._ending = True
            self._woken.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _answer(self) -> None:
        while not self._calls.empty():
            fn, answer = self._calls.get()
            try:
                answer.set_result(fn())
            except Exception as error:  # whoever called sees to it
                answer.set_exception(error)

    def _run(self) -> None:
        if sys.platform == "linux":  # where threads have a priority of their own: the page's answers come first
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._woken:
                self._running = None
                self._woken.notify_all()
                self._woken.wait_for(lambda: self._ending or self._wanted)
                if self._ending:
                    return
                name = next(name for name in self._jobs if name in self._wanted)
                self._wanted.discard(name)
                self._running = (name, time.monotonic())
            try:
                self._jobs[name]()
                self.trouble.pop(name, None)
            except UserError as error:
                self.trouble[name] = str(error)
            except Exception as error:  # the page stays: labels can still be given
                self.trouble[name] = f"{type(error).__name__}: {error}"
                say(f"{name}: {type(error).__name__}: {error}")
