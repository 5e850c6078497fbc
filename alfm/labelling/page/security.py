"""Who may talk to the page's server: its own page, opened at the address that was printed, and nobody else.

A page on this machine is within reach of every site that the same browser has open (and, by DNS rebinding, under a
name of the site's), and of everybody else on the machine. So a request must name this host, know the secret, come
from this page and be short; and what is answered may run nothing, be framed nowhere and be kept by nobody else.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-alfm-secret"
MOST_BYTES = 1 << 20  # of a request: labels for all items of a page, many times over
SAFE = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""On every answer. An answer that says nothing about being kept is not kept (`no-store`)."""


@dataclass(frozen=True)
class Access:
    """What the gate knows. hosts: names under which the server may be called, in lower case, without a port.

    secret: made anew for each start, in no file. cookie: its name; cookies do not tell ports apart, so it does.
    """

    hosts: frozenset[str]
    secret: str
    cookie: str

    @classmethod
    def of(cls, host: str, port: int, more: Iterable[str] = ()) -> Access:
        """For a server bound to host and port, called by `more` names too. Bound to all addresses: the machine's."""
        names = {"127.0.0.1", "localhost", "::1", host, *more}
        if not is_local(host):
            names |= {socket.gethostname(), socket.getfqdn()}
        return cls(frozenset(bare(name) for name in names), secrets.token_urlsafe(24), f"alfm_{port}")

    def called(self, name: str, server: str | None) -> bool:
        """Whether a Host header names this server; the address itself, that the request came in at, does always."""
        name = bare(name)
        return name in self.hosts or (is_address(name) and name == server)

    def knows(self, given: str) -> bool:
        """Whether it is the secret, in the same time whatever it is."""
        return hmac.compare_digest(given.encode(), self.secret.encode())


def is_address(name: str) -> bool:
    """Whether it is an address of numbers, which no DNS server can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to it."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def bare(host: str) -> str:
    """A Host header's name without its port: `[::1]:8765` -> `::1`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


class Gate:
    """Middleware: asks everything above of a request before the application sees it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refusal(scope, headers)
        if refused:
            await _answer(send, *refused)
            return
        if scope["path"] == "/" and (given := parse_qs(scope["query_string"].decode("latin-1")).get("secret")):
            await self._enter(given[-1], send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_ours(message.get("headers", []))
            await send(message)

        await self.app(scope, _bounded(receive), guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and sentence, or None for a request that may go on."""
        host = headers.get("host", "")
        server = (scope.get("server") or (None,))[0]
        if sum(name == b"host" for name, _ in scope["headers"]) != 1 or not self.access.called(host, server):
            return 421, f"This page is not called {bare(host)[:100]!r}; start it with hosts=[NAME] to allow a name."
        if scope["method"] not in (*SAFE, "POST"):
            return 405, "The page reads and posts, nothing else."
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 9 or int(length) > MOST_BYTES:
            return 413, _too_long()
        if scope["path"] == "/" or scope["path"].startswith("/static/"):
            return None if scope["method"] in SAFE else (405, "There is nothing to post to here.")
        return self._stranger(scope["method"], host, headers)

    def _stranger(self, method: str, host: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """The same for what only the page itself may ask for: items and labels."""
        where = "open the page at the address that the command printed"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.strip().lower():
            return 403, f"This request comes from another site, {origin[:100]!r}: {where}."
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, f"This request comes from another site: {where}."
        header, cookie = headers.get(HEADER, ""), _cookie(headers.get("cookie", ""), self.access.cookie)
        if not self.access.knows(header) and (method not in SAFE or not self.access.knows(cookie)):
            return 403, f"This request does not know the secret: {where}."
        return None

    async def _enter(self, given: str, send: Send) -> None:
        """The secret in the address becomes a cookie, and leaves the address."""
        if not self.access.knows(given):
            await _answer(send, 403, "The secret in this address is of another start: use the address printed last.")
            return
        cookie = f"{self.access.cookie}={self.access.secret}; Path=/; HttpOnly; SameSite=Strict"
        await _answer(send, 303, "", {"location": "/", "set-cookie": cookie})


def _cookie(header: str, name: str) -> str:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def _too_long() -> str:
    return f"A request may be {MOST_BYTES >> 10} KB long: label fewer items at once."


def _bounded(receive: Receive) -> Receive:
    """The same; HTTPException 413 for a body that is longer than it may be, whatever its header says."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES:
            raise HTTPException(413, _too_long())
        return message

    return bounded


def _with_ours(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    own = {name.lower(): value for name, value in headers}
    ours = {name.encode(): value.encode() for name, value in HEADERS.items()}
    return list(({b"cache-control": b"no-store"} | own | ours).items())


async def _answer(send: Send, status: int, sentence: str, more: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(name.encode(), value.encode()) for name, value in (more or {}).items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": _with_ours(headers)})
    await send({"type": "http.response.body", "body": body})
