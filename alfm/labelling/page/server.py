"""The page's server: its files, the items by row number, and what is said about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from alfm.errors import UserError
from alfm.labelling.media import media_type
from alfm.labelling.page import search, shown
from alfm.labelling.page.desk import Act, Desk, Stale
from alfm.labelling.page.security import Access, Gate
from alfm.labelling.thumbnails import audio, thumbnail

STATIC = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
IMAGES = ("image/jpeg", "image/webp", "image/png")
SIDES = (160, 320, 1024)
SOUNDS = ("audio/wav", "audio/flac", "audio/mpeg", "audio/ogg")
PRIVATE = {"cache-control": "private, max-age=86400"}  # in this browser only; addresses name the pool
MOST_ITEMS = 500
AHEAD = 24
LONGEST_LIST = 20000

Name = Annotated[str, Field(min_length=1, max_length=200)]
Who = Annotated[str, Field(min_length=1, max_length=100)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SaidOne(_Closed):
    """One act of a request."""

    id: Annotated[str, Field(min_length=8, max_length=64)]
    act: Literal["label", "skip", "clear", "reject"]
    row: int
    label: Name | None = None
    revision: int
    batch: int | None = None
    undo: bool = False


class Said(_Closed):
    """What `/api/acts` takes."""

    by: Who
    acts: Annotated[list[SaidOne], Field(min_length=1, max_length=2000)]


class Classes(_Closed):
    """What `/api/classes` takes: one of three."""

    by: Who
    add: Name | None = None
    rename: tuple[Name, Name] | None = None
    merge: tuple[list[Name], Name] | None = None


class Audit(_Closed):
    """What `/api/audit` takes: how many items it holds from now on."""

    by: Who
    items: Annotated[int, Field(ge=0, le=100_000)]


class Server:
    """Answers requests about one desk."""

    def __init__(self, desk: Desk, annotator: str) -> None:
        self.desk, self.annotator = desk, annotator
        self.pool = _digest([cache["fingerprint"] for cache in desk.learner.state.settings["caches"]])

    def app(self, access: Access) -> ASGIApp:
        """The application behind its gate."""
        routes = [
            Route("/", self.page),
            Route("/static/{name}", self.static),
            Route("/api/hello", _json(lambda request: self.hello(access))),
            Route("/api/standing", _json(self.standing)),
            Route("/api/list", _json(self.list)),
            Route("/api/items", _json(self.items)),
            Route("/api/duplicates/{row:int}", _json(self.duplicates)),
            Route("/api/acts", _json(self.acts), methods=["POST"]),
            Route("/api/classes", _json(self.classes), methods=["POST"]),
            Route("/api/audit", _json(self.audit), methods=["POST"]),
            Route("/item/{row:int}/image/{side:int}", _guarded(self.image)),
            Route("/item/{row:int}/sound", _guarded(self.sound)),
        ]
        return Gate(Starlette(routes=routes, exception_handlers={HTTPException: _refused}), access)

    async def page(self, request: Request) -> Response:
        """The page itself, which holds nothing of the pool."""
        return _static("index.html")

    async def static(self, request: Request) -> Response:
        """Its other files."""
        name = request.path_params["name"]
        return _static(name) if name in STATIC else _error(404, "There is no such file.")

    # ---- reading ----------------------------------------------------------------------------------------------------

    def hello(self, access: Access) -> dict[str, Any]:
        """Once, when the page opens."""
        items = self.desk.items
        return {
            "secret": access.secret,
            "annotator": self.annotator,
            "pool": self.pool,
            "modality": items.modality,
            "unseen": items.why_unseen,
            "sides": SIDES,
        }

    def standing(self, request: Request) -> dict[str, Any]:
        """How things stand and what is next; no more than the version where that is what the page has."""
        self.desk.refresh()
        if request.query_params.get("version") == str(self.desk.version):
            return {"version": self.desk.version}
        return self._now(_who(request.query_params.get("by", self.annotator)))

    def _now(self, by: str) -> dict[str, Any]:
        return shown.standing(self.desk, by) | {"queue": shown.queue(self.desk, AHEAD, by)}

    def list(self, request: Request) -> dict[str, Any]:
        """Rows of a list, in its order: whole, so that refits do not move what an annotator is looking at."""
        given = request.query_params
        which, sort = given.get("which", "unlabelled"), given.get("sort", "pool")
        notes: dict[int, str] = {}
        if which == "disputed":
            notes = self.desk.disputed()
            rows = list(notes)
        elif which in ("like", "varied"):
            rows = search.alike(self.desk, _rows(given.get("rows", "")), which == "varied")
        else:
            rows = search.find(self.desk, which, given.get("words", "")[:500], given.get("label", ""), sort)
        return {"total": len(rows), "rows": rows[:LONGEST_LIST], "notes": notes}

    def items(self, request: Request) -> dict[str, Any]:
        """Items by their rows."""
        return {"items": shown.listed(self.desk, _rows(request.query_params.get("rows", "")))}

    def duplicates(self, request: Request) -> dict[str, Any]:
        """Near duplicates of an item about which nothing has been said."""
        found = search.duplicates(self.desk, request.path_params["row"])
        return {"items": shown.listed(self.desk, [row for row, _ in found])}

    def image(self, request: Request) -> Response:
        """A picture of an item, made anew: never the file itself, which might be anything."""
        side = request.path_params["side"]
        if side not in SIDES:
            return _error(404, f"Pictures have a side of {', '.join(map(str, SIDES))}.")
        row = self._row(request)
        return _media(thumbnail(self.desk.items, row, side), IMAGES)

    def sound(self, request: Request) -> Response:
        """A recording, with a type that is a sound's and nothing else."""
        row = self._row(request)
        return _media(audio(self.desk.items, row)[0], SOUNDS)

    def _row(self, request: Request) -> int:
        row = int(request.path_params["row"])
        self.desk.id(row)
        return row

    # ---- saying -----------------------------------------------------------------------------------------------------

    def acts(self, request: Request, body: bytes) -> tuple[int, dict[str, Any]]:
        """Acts of an annotator, all or none; 409 and the items as they are where one was changed meanwhile."""
        said = Said.model_validate_json(body)
        by = _who(said.by)
        wrong = [one for one in said.acts if (one.label is None) == (one.act in ("label", "reject"))]
        if wrong:
            raise UserError("A label and a rejection name a class, a skip and a clearance do not.")
        acts = [Act(one.id, one.act, one.row, one.label, one.revision, one.undo) for one in said.acts]
        try:
            rows, status, sentence = self.desk.take(acts, by), 200, None
        except Stale as stale:
            rows, status = [act.row for act in acts], 409
            sentence = f"{_several(len(stale.rows))} changed elsewhere meanwhile: this is how it stands now."
        return status, self._now(by) | {"items": shown.listed(self.desk, rows), "error": sentence}

    def classes(self, request: Request, body: bytes) -> tuple[int, dict[str, Any]]:
        """A class more, another name for one, or several as one."""
        given = Classes.model_validate_json(body)
        by = _who(given.by)
        self.desk.classes(given.model_dump(exclude={"by"}, exclude_none=True), by)
        return 200, self._now(by)

    def audit(self, request: Request, body: bytes) -> tuple[int, dict[str, Any]]:
        """So many items set aside, to measure with."""
        given = Audit.model_validate_json(body)
        by = _who(given.by)
        self.desk.audit(given.items, by)
        return 200, self._now(by)


def _digest(fingerprints: Sequence[str]) -> str:
    """Names a pool in addresses, so that no browser shows an item of another under the same number."""
    return hashlib.blake2b("\n".join(fingerprints).encode(), digest_size=6).hexdigest()


def _several(count: int) -> str:
    return "An item was" if count == 1 else f"{count} items were"


def _who(name: str) -> str:
    """An annotator's name; UserError for one that is none."""
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise UserError("An annotator's name is one line of at most 100 characters.")
    return name


def _rows(text: str) -> list[int]:
    """`3,5,8` -> [3, 5, 8]; UserError for what are no rows, and for too many."""
    words = text.split(",") if text else []
    if not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words) or len(words) > MOST_ITEMS:
        raise UserError(f"rows= takes up to {MOST_ITEMS} row numbers with commas between them.")
    return [int(word) for word in words]


def _static(name: str) -> Response:
    content = files("alfm.labelling.page").joinpath("static", name).read_bytes()
    return Response(content, headers={"content-type": STATIC[name], "cache-control": "no-cache"})


def _media(content: bytes, allowed: Sequence[str]) -> Response:
    """Bytes under the type that they begin as, if that is an allowed one."""
    kind = media_type(content)
    if kind not in allowed:
        return _error(415, f"Items of type {kind[:50]} are not shown.")
    return Response(content, headers={"content-type": kind, **PRIVATE})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail)


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)


def _guarded(answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """An answer made in a thread of its own; a mistake becomes its sentence."""

    async def guarded(request: Request) -> Response:
        try:
            return await run_in_threadpool(answer, request)
        except UserError as error:
            return _error(400, str(error))

    return guarded


def _json(answer: Callable[..., Any]) -> Callable[[Request], Awaitable[Response]]:
    """The same for plain data: what a GET returns, or a status and what a POST of JSON returns."""

    async def called(request: Request) -> Response:
        status = 200
        try:
            if request.method == "POST":
                if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                    return _error(415, "What is said is sent as application/json.")
                status, found = await run_in_threadpool(answer, request, await request.body())
            else:
                found = await run_in_threadpool(answer, request)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            return _error(400, f"What is said is not understood{where and f' ({where})'}: {first['msg']}.")
        except UserError as error:
            return _error(400, str(error))
        return _Escaped(found, status)

    return called


class _Escaped(JSONResponse):
    """JSON in ASCII: names of files may hold half a character, which UTF-8 does not know."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
