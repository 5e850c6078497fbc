"""The gate: who may ask, what for, and what every answer says about itself."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from alfm.labelling.page.security import HEADER, MOST_BYTES, Access, Gate, bare, is_local

HOME = "http://127.0.0.1:8765"


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


@pytest.fixture
def access() -> Access:
    return Access.of("127.0.0.1", 8765)


@pytest.fixture
def client(access) -> TestClient:
    routes = [Route(path, echo, methods=["GET", "POST"]) for path in ("/", "/api/items", "/static/page.js")]
    return TestClient(Gate(Starlette(routes=routes), access), base_url=HOME, follow_redirects=False)


def test_the_page_itself_may_be_read_by_anybody_on_this_host(client):
    assert client.get("/").status_code == client.get("/static/page.js").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "localhost:9000"])
def test_names_of_this_host(client, access, host):
    assert client.get("/api/items", headers={"host": host, HEADER: access.secret}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "10.0.0.1", "[::2]"]
)
@pytest.mark.parametrize("path", ["/", "/static/page.js", "/api/items"])
def test_a_foreign_host(client, access, host, path):
    answer = client.get(path, headers={"host": host, HEADER: access.secret})
    assert answer.status_code == 421
    assert "hosts=[NAME]" in answer.json()["error"]


def test_two_hosts(client, access):
    headers = [("host", "127.0.0.1"), ("host", "evil.example"), (HEADER, access.secret)]
    assert client.get("/api/items", headers=headers).status_code == 421


def test_a_missing_and_a_wrong_secret(client, access):
    for headers in ({}, {HEADER: "x" * 32}, {HEADER: b"\xe9"}, {"cookie": f"{access.cookie}=wrong"}):
        for call in (client.get, client.post):
            answer = call("/api/items", headers=headers)
            assert answer.status_code == 403
            assert "printed" in answer.json()["error"]


def test_a_cookie_reads_and_does_not_write(client, access):
    cookie = {"cookie": f"other=1; {access.cookie}={access.secret}"}
    assert client.get("/api/items", headers=cookie).status_code == 200
    assert client.post("/api/items", headers=cookie).status_code == 403
    assert client.post("/api/items", headers=cookie | {HEADER: access.secret}).status_code == 200


def test_the_secret_leaves_the_address_and_becomes_a_cookie(client, access):
    answer = client.get(f"/?secret={access.secret}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    said = answer.headers["set-cookie"]
    assert "HttpOnly" in said and "SameSite=Strict" in said and access.secret in said
    assert client.get("/api/items").status_code == 200  # the client keeps it
    answer = client.get("/?secret=old")
    assert answer.status_code == 403 and "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1:8766"},  # another page on this machine
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_a_foreign_origin(client, access, headers):
    for call in (client.get, client.post):
        answer = call("/api/items", headers={HEADER: access.secret} | headers)
        assert answer.status_code == 403
        assert "another site" in answer.json()["error"]


def test_its_own_origin(client, access):
    headers = {HEADER: access.secret, "origin": HOME, "sec-fetch-site": "same-origin"}
    assert client.post("/api/items", headers=headers).status_code == 200


def test_long_bodies(client, access):
    def pieces():
        for _ in range(MOST_BYTES // 1000 + 2):
            yield b"x" * 1000

    headers = {HEADER: access.secret}
    assert client.post("/api/items", headers=headers, content=b"x" * MOST_BYTES).status_code == 200
    for content in (b"x" * (MOST_BYTES + 1), pieces()):  # with the length said, and without
        answer = client.post("/api/items", headers=headers, content=content)
        assert answer.status_code == 413
        assert "fewer" in answer.text
    for length in ("-1", "\u00b2", "9" * 5000):
        wrong = headers | {"content-length": length.encode("latin-1")}
        assert client.post("/api/items", headers=wrong).status_code == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods(client, access, method):
    assert client.request(method, "/api/items", headers={HEADER: access.secret}).status_code == 405


def test_every_answer_says_what_may_be_done_with_it(client, access):
    for answer in (client.get("/"), client.get("/api/items"), client.get("/", headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


def test_names_that_are_added_and_addresses_that_are_bound():
    access = Access.of("0.0.0.0", 8765, ["Label.Example"])
    assert access.called("label.example:80", None)
    assert access.called("10.1.2.3:8765", "10.1.2.3")  # the address that the request came in at
    assert not access.called("10.1.2.4:8765", "10.1.2.3")
    assert not access.called("evil.example", "evil.example")  # a name is no address
    assert Access.of("::1", 1).secret != Access.of("::1", 1).secret


def test_bare_names():
    assert [bare(name) for name in ("A.b:1", "[::1]:80", "[::1]", "::1", "localhost")] == [
        "a.b", "::1", "::1", "::1", "localhost",
    ]  # fmt: skip
    assert is_local("127.0.0.9") and is_local("::1") and is_local("localhost") and not is_local("0.0.0.0")
