"""engine=ray: actors of a Ray cluster, each with a backbone, that claim parts of one target as local workers do.

The folder of parts lies where all nodes see it, so nothing but words goes through Ray. An actor that is lost is started
again where there is room, a node's on another, some times; what it was at is taken over (`alfm.cache.claims`), so
that it costs the parts in flight. Who has no room any more is not waited for: the first actor to return has seen the
finished cache.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from alfm.config.cell import Cell
from alfm.config.home import at_home
from alfm.config.paths import env_file
from alfm.errors import UserError
from alfm.extraction.processes import Place, this_process
from alfm.extraction.settings import RayChoice

_RESTARTS = 10
"""Of an actor: one that dies of what it is at, for want of memory say, would be started again for ever."""
_LEAVING_SECONDS = 10.0
"""What the other actors get to see that the cache is finished."""


class Worker:
    """What an actor is. Answers with a user's mistake instead of raising it, since Ray would wrap it."""

    def work(
        self,
        child: Callable[[dict[str, Any], Place], None],
        cell: Cell,
        place: Place,
        besides: Mapping[str, str],
    ) -> str | None:
        """One worker from start to end: `child(config, place)`."""
        try:
            with at_home(cell, besides):
                child(cell.config, place)
        except UserError as error:
            return str(error)
        return None


def launch_on_ray(cell: Cell, count: int, given: RayChoice, child: Callable[[dict[str, Any], Place], None]) -> None:
    """Run `child(cell.config, place)` in `count` actors until one of them returns. Raises UserError.

    Joins the cluster of `given.address`, or starts a Ray on this machine and ends it; one that this process has
    already joined is used.
    """
    if find_spec("ray") is None:
        raise UserError("engine=ray needs a package: pip install 'alfm[ray]'")
    import ray

    joined = ray.is_initialized()
    if not joined:
        try:
            # output of actors comes here, and none of Ray's own
            ray.init(address=given.address or "local", logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0].rstrip(".")
            raise UserError(
                f"ray.address={given.address}: {first}; start one with ray start --head, or leave ray.address out."
            ) from error
    try:
        _run(cell, count, given, child)
    finally:
        if not joined:
            ray.shutdown()


def _run(cell: Cell, count: int, given: RayChoice, child: Callable[[dict[str, Any], Place], None]) -> None:
    import ray
    from ray.exceptions import RayActorError

    have = ray.cluster_resources()
    gpus = (1.0 if have.get("GPU") else 0.0) if given.num_gpus == "auto" else float(given.num_gpus)
    for name, wanted in (("CPU", given.num_cpus), ("GPU", gpus)):
        if wanted > have.get(name, 0):
            setting = f"ray.num_{name.lower()}s={wanted:g}"
            raise UserError(f"{setting}: no machine of the cluster has them, it has {have.get(name, 0):g} in all.")
    shard, run = this_process(cell.config.get("shard")).shard, uuid.uuid4().hex
    kind: Any = ray.remote(Worker).options(
        num_cpus=given.num_cpus, num_gpus=gpus, max_restarts=_RESTARTS, max_task_retries=_RESTARTS,
        runtime_env={"env_vars": _variables()},
    )  # fmt: skip
    actors = [kind.remote() for _ in range(count)]
    waiting = [
        actor.work.remote(child, cell, Place(rank, 0, 1, count, shard, run), env_file())
        for rank, actor in enumerate(actors)
    ]
    try:
        while waiting:
            (first, *_), waiting = ray.wait(waiting, num_returns=1)
            try:
                mistake = ray.get(first)
            except RayActorError:
                continue  # lost for good: the others take over
            if mistake is not None:
                raise UserError(mistake)
            if waiting:
                ray.wait(waiting, num_returns=len(waiting), timeout=_LEAVING_SECONDS)
            return
        raise UserError(
            f"All {count} actors were lost, each {_RESTARTS + 1} times: see whether they have memory enough; "
            "the same command goes on from here."
        )
    finally:
        for actor in actors:
            ray.kill(actor)


def _variables() -> dict[str, str]:
    """What actors need of this process's environment: threads that do not spin, and where code is."""
    names = ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "PYTHONPATH")
    return {name: os.environ[name] for name in names if os.environ.get(name)}
