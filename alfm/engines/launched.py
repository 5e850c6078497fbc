"""Cells of a sweep as jobs of one of Hydra's launchers: `-m hydra/launcher=joblib`, submitit_slurm, ray and others."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from alfm.config.cell import Cell
from alfm.config.launching import Launcher
from alfm.config.paths import env_file
from alfm.engines.base import in_order, open_session
from alfm.engines.jobs import Job, Sweep
from alfm.errors import UserError, say

TIMES = 2
"""A cell that failed, or whose job was lost, is begun so often in all."""
_POLL_SECONDS = 0.2


def run_launched(launcher: Launcher, cells: Sequence[Cell]) -> int:
    """Have a launcher run all cells and say how each ended; the exit status, see `alfm.engines.base.Engine`.

    What failed or was lost is launched once more, after the others, one cell a job; what then is not done is listed.
    Raises UserError where the launcher cannot begin.
    """
    session = open_session(cells[0].task)
    cells = in_order(cells, session.key)
    keys = [session.key(cell) for cell in cells]
    launcher.workers()  # says what is wrong with their number, before anything is written
    with Sweep.create(launcher.folder, cells, env_file()) as sweep:
        print(f"{len(cells)} cells through hydra/launcher={launcher.name}; what each says: {sweep.cells}", flush=True)
        try:
            with _told(sweep, cells):
                _launch_until_done(launcher, sweep, keys)
            sweep.over()
        except KeyboardInterrupt:
            say("Interrupted; jobs that a cluster's queue holds go on. The same command goes on from here.", "")
            return 130
        failed = [number for number in range(len(cells)) if not sweep.done(number)]
        for number in failed:
            say(f"{' '.join(cells[number].words)}: {sweep.failure(number) or 'its job was lost'}")
    if failed:
        words = "; ".join(" ".join(cells[number].words) for number in failed)
        say(f"{len(failed)} of {len(cells)} jobs failed: {words}")
    return 1 if failed else 0


def _launch_until_done(launcher: Launcher, sweep: Sweep, keys: Sequence[Hashable]) -> None:
    """Launch what is not done, until that is all, each was begun `TIMES`, or a launch begins nothing."""
    workers, first, launches = launcher.workers(), 0, 0
    while True:
        begun = sweep.begun()
        waiting = [number for number in range(len(keys)) if not sweep.done(number) and begun.get(number, 0) < TIMES]
        if not waiting:
            return
        waiting.sort(key=lambda number: begun.get(number, 0))  # which may take others with them come last
        each = launcher.cells_per_job or max(1, len(waiting) // (workers or len(waiting)))
        jobs = list(jobs_of(waiting, lambda number: keys[number], 1 if launches else each))
        error: Exception | None = None
        at_once = workers if launcher.all_at_once and workers else len(jobs)
        for start in range(0, len(jobs), at_once):
            wave = [[f"cells=[{','.join(map(str, job))}]"] for job in jobs[start : start + at_once]]
            try:
                launcher.start(Job(str(sweep.folder)), wave, first)
            except Exception as failure:  # a job was lost, and the launcher does not wait for the others then
                error = failure
            first += len(wave)
        while sweep.at_work():
            time.sleep(_POLL_SECONDS)
        launches += 1
        if sweep.begun() == begun:
            if error is not None and not begun:
                log = sweep.folder / "launcher.log"
                log.write_text("".join(traceback.format_exception(error)))
                why = str(error).strip().partition("\n")[0]
                raise UserError(
                    f"hydra/launcher={launcher.name} began no job: {type(error).__name__}: {why} (see {log})"
                )
            return


def jobs_of(numbers: Sequence[int], key: Callable[[int], Hashable], most: int) -> Iterator[list[int]]:
    """Lists of at most `most` numbers of the same key, in order of first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for number in numbers:
        groups.setdefault(key(number), []).append(number)
    for group in groups.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))


@contextmanager
def _told(sweep: Sweep, cells: Sequence[Cell]) -> Iterator[None]:
    """Print each cell as it is done or fails, while the block runs."""
    ended = threading.Event()
    thread = threading.Thread(target=_tell, args=(sweep, cells, ended), name="alfm-sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell(sweep: Sweep, cells: Sequence[Cell], ended: threading.Event) -> None:
    told: set[int] = set()
    failures: dict[int, str] = {}
    last = False
    while not last:
        last = ended.wait(_POLL_SECONDS)  # and one look more after the end
        for number in sorted(set(range(len(cells))) - told):
            words = " ".join(cells[number].words)
            if sweep.done(number):
                told.add(number)
                print(f"[{len(told)}/{len(cells)}] {words}", flush=True)
            elif (why := sweep.failure(number)) and failures.get(number) != why:
                failures[number] = why
                print(f"failed: {words}: {why}", flush=True)
