"""Which of several workers this process is, and starting one per GPU. Workers need no connection: they claim parts."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import re
import sys
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from alfm.errors import UserError


@dataclass(frozen=True)
class Place:
    """One worker among `world`. `shard`: (i, n), work only on parts i, i + n, ...; `run`: the name of the whole run."""

    rank: int = 0
    local_rank: int = 0
    local_world: int = 1
    world: int = 1
    shard: tuple[int, int] | None = None
    run: str | None = None


def this_process(shard: str | None) -> Place:
    """From torchrun's RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE and the setting `shard=i/n`."""

    def number(name: str, default: int) -> int:
        text = os.environ.get(name, "")
        return int(text) if text.isdecimal() else default

    world = number("WORLD_SIZE", 1)
    parsed = None
    if shard is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", str(shard))
        if match is None or int(match[1]) >= int(match[2]):
            raise UserError(f"shard={shard}: give i/n with i from 0 to n-1, such as shard=0/4.")
        parsed = (int(match[1]), int(match[2]))
    local = number("LOCAL_RANK", 0)
    return Place(number("RANK", 0), local, number("LOCAL_WORLD_SIZE", world), world, parsed)


def launch(config: dict[str, Any], count: int, child: Callable[[dict[str, Any], Place], None]) -> None:
    """Run `child(config, place)` in `count` processes, one per GPU, and wait. `UserError` when one of them failed.

    The first failure of a worker stops the others. One that was killed does not: they take over its parts.
    """
    place = this_process(config.get("shard"))
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    mistakes = context.SimpleQueue()
    run = uuid.uuid4().hex
    workers = [
        context.Process(
            target=_guarded,
            args=(child, config, Place(rank, rank, count, count, place.shard, run), mistakes),
            name=f"alfm-worker-{rank}",
        )
        for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        waiting = {worker.sentinel: worker for worker in workers}
        while waiting:
            for sentinel in multiprocessing.connection.wait(list(waiting)):
                worker = waiting.pop(cast(int, sentinel))
                worker.join()
                if worker.exitcode == 1:
                    message = mistakes.get() if not mistakes.empty() else f"{worker.name} failed"
                    raise UserError(message)
        killed = [worker.name for worker in workers if worker.exitcode != 0]
        if len(killed) == count:
            raise UserError(f"All {count} workers were killed: the same command goes on from here.")
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()


def _guarded(child: Callable[[dict[str, Any], Place], None], config: dict[str, Any], place: Place, out: Any) -> None:
    try:
        child(config, place)
    except UserError as error:
        out.put(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        out.put(f"{type(error).__name__}: {error}")
        sys.exit(1)
