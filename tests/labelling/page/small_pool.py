"""A small pool's page, in this process and over a socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.testclient import TestClient

from alfm.labelling.page.desk import Desk
from alfm.labelling.page.security import HEADER, Access
from alfm.labelling.page.server import Server

N = 60
SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
CLASSES = ["calm", "rain", "snow"]

Desks = Callable[..., Desk]


def client_of(desk: Desk, access: Access, by: str = "me") -> TestClient:
    """A client that knows the secret."""
    return TestClient(Server(desk, by).app(access), base_url="http://127.0.0.1:8765", headers={HEADER: access.secret})


@contextlib.contextmanager
def served(desk: Desk) -> Iterator[str]:
    """The desk's page over a socket, in a thread: the address to open."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    access = Access.of("127.0.0.1", port)
    config = uvicorn.Config(
        Server(desk, "me").app(access), log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=5
    )  # what is being answered is answered: a picture that is cut off would be an error on the page
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    desk.start()
    try:
        yield f"http://127.0.0.1:{port}/?secret={access.secret}"
    finally:
        server.should_exit = True
        thread.join(10)
        desk.close()
        listening.close()
