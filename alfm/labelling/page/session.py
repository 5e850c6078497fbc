"""`python -m alfm.label` from start to end: from a cell to a page that is served until Ctrl-C."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le, MinLen

from alfm.config.cell import Cell
from alfm.errors import UserError
from alfm.labelling.imported import import_labels
from alfm.labelling.label_files import read as read_labels
from alfm.labelling.opening import open_learner, set_audit
from alfm.labelling.page.desk import Desk
from alfm.labelling.page.measures import measures
from alfm.options import Count, Means, Name, PathName, checked, read

if TYPE_CHECKING:
    from alfm.labelling.active_learner import ActiveLearner
    from alfm.labelling.page.security import Access

PORTS = 65535
Paths = Annotated[PathName | Annotated[Sequence[PathName], MinLen(1)] | None, Means("a path, a list of them or null")]


@dataclass(frozen=True)
@checked
class Settings:
    """What conf/label.yaml has beside what makes the learner."""

    labels: Paths
    annotator: Name
    n: Count
    host: Name
    port: Annotated[int, Ge(0), Le(PORTS)]
    hosts: Annotated[Sequence[Name], Means("a list of names, such as hosts=[my.machine]")]
    every: Count
    target: Annotated[float, Gt(0), Le(1)]


class Page:
    """Serves one configuration until it is interrupted. A session of an engine: see `alfm.engines.base.Session`."""

    def key(self, cell: Cell) -> str:
        """Cells on the same cache have the same."""
        return str(cell.cfg().cache)

    def run(self, cell: Cell) -> None:
        """A cell of conf/label.yaml. Raises UserError; returns after Ctrl-C."""
        check_extra()
        given = read(Settings, cell.cfg())
        with bound(given.host, given.port) as listening:
            learner = open_learner(cell)
            for path in [given.labels] if isinstance(given.labels, str | os.PathLike) else given.labels or ():
                file = read_labels(path, learner.items, learner.classes)
                print("\n".join([f"Read {file}", *(f"  {line}" for line in [*file.notes, *file.listed])]))
                print(f"  {import_labels(learner, file, given.annotator)}")
            set_audit(cell, learner)
            desk = Desk(learner, n=given.n, every=given.every, measures=measures(given.target))
            serve(desk, listening, given.host, given.hosts, given.annotator)
            print(f"\nEnded: {_told(learner)} The same command goes on from here.", flush=True)
            if not desk.close():  # a batch may take a while more, and an interpreter that ends under it aborts
                os._exit(0)


def check_extra() -> None:
    """Raises UserError where what the page is made with is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"The page needs {error.name}, which is not installed: pip install 'alfm[label]'.") from error


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: any that is free. Raises UserError, with a port that is free."""
    try:
        return _listening(host, port)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            free = next((other for other in range(port + 1, min(port + 200, PORTS)) if _is_free(host, other)), None)
            where = f"add port={free}" if free else "choose another with port="
            raise UserError(f"Port {port} is in use, perhaps by this command in another window: {where}.") from error
        raise UserError(f"host={host} port={port} cannot be listened at ({error}): choose others.") from error


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def _is_free(host: str, port: int) -> bool:
    try:
        _listening(host, port).close()
    except OSError:
        return False
    return True


def serve(desk: Desk, listening: socket.socket, host: str, hosts: Sequence[str], annotator: str) -> None:
    """Serves a desk at a socket until Ctrl-C; says where."""
    from alfm.labelling.page.security import Access

    port = listening.getsockname()[1]
    access = Access.of(host, port, hosts)
    shown = f"[{host}]" if ":" in host else host
    print(f"Open http://{shown}:{port}/?secret={access.secret}\n{_where(desk.learner)} Ctrl-C ends.", flush=True)
    run_server(desk, listening, access, annotator)


def run_server(desk: Desk, listening: socket.socket, access: Access, annotator: str) -> None:
    """The same, saying nothing."""
    import uvicorn

    from alfm.labelling.page.server import Server

    config = uvicorn.Config(
        Server(desk, annotator).app(access), log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, lifespan="off", ws="none", timeout_graceful_shutdown=2,
    )  # fmt: skip
    desk.start()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        desk.close()


def _where(learner: ActiveLearner) -> str:
    journal = learner.journal
    return "Labels are kept in memory only." if journal is None else f"Labels are written to {journal.path}."


def _told(learner: ActiveLearner) -> str:
    status = learner.status()
    return f"{status.labelled} of {status.items} items are labelled."
