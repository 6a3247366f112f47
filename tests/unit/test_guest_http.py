"""Requests as functions see them, and what their responses may be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hanzo_compute.errors import FunctionFailed, InvalidRequest
from hanzo_compute.front import guest_http
from hanzo_compute.front.api import rendered
from hanzo_compute.front.guest_http import HEADERS_MAX
from hanzo_compute_host.events import from_request, to_answer
from hanzo_compute_host.manifest import Route
from hanzo_compute_host.routes import Match

KEY = "hzk_" + "0" * 26 + "_" + "a" * 43
TOLD = {"X-Function": "f@1", "X-Invocation": "i-1"}


def event(
    headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b"", query: bytes = b"", method: str = "POST"
) -> dict[str, Any]:
    scope = {
        "method": method,
        "path": "/fn/f/a/b",
        "query_string": query,
        "headers": headers or [],
        "http_version": "1.1",
    }
    match = Match(Route("ANY", "/fn/{name}/{path+}", "invoke"), {"name": "f", "path": "a/b"})
    return from_request(scope, body, match, request_id="r", now_ms=0)


def seen(given: dict[str, Any], path: str = "a/b") -> tuple[dict[str, Any], bytes]:
    line, _, data = guest_http.request(given, path, guest_http.body(given)).partition(b"\n")
    head: dict[str, Any] = json.loads(line)
    return head, data


def sent(head: Any, body: bytes = b"") -> Any:
    return guest_http.response(json.dumps(head).encode() + b"\n" + body, TOLD)


def test_a_request() -> None:
    headers = [(b"Content-Type", b"text/plain"), (b"X-A", b"1"), (b"X-A", b"2"), (b"Cookie", b"a=1; b=2")]
    head, data = seen(event([*headers, (b"cookie", b"c=3")], b"hello", b"x=1&x=2&y", "PUT"))
    assert head == {
        "method": "PUT",
        "path": "/a/b",
        "query": "x=1&x=2&y",
        "headers": {"content-type": "text/plain", "x-a": "1,2", "cookie": "a=1; b=2; c=3"},
        "body_size": 5,
    }
    assert data == b"hello"


@pytest.mark.parametrize("body", [b"", b"\xff\x00\xfe", b"{}\n{}", "é\n".encode(), bytes(range(256))])
def test_a_body_comes_as_it_was_sent(body: bytes) -> None:
    head, data = seen(event(body=body))
    assert (head["body_size"], data) == (len(body), body)


@pytest.mark.parametrize(
    "form", ["Bearer {}", "bearer {}", "Bearer  {}", "BEARER \t{}", "x,Bearer {}", "Bearer {} ", "{}"]
)
def test_the_platforms_credential_is_not_passed_on(form: str) -> None:
    head, _ = seen(event([(b"authorization", form.format(KEY).encode()), (b"x-own", b"1")]))
    assert head["headers"] == {"x-own": "1"}
    assert KEY not in json.dumps(head)


def test_other_credentials_are_the_functions_affair() -> None:
    assert seen(event([(b"authorization", b"Basic eDp5")]))[0]["headers"] == {"authorization": "Basic eDp5"}


def test_headers_of_the_connection_and_of_the_host_do_not_come_in() -> None:
    names = ("connection", "te", "upgrade", "transfer-encoding", "proxy-authorization", "hzc-call", "Hzc-Wake")
    assert seen(event([(name.encode(), b"x") for name in names]))[0]["headers"] == {}


def test_odd_bytes_in_headers_and_query_stay_json() -> None:
    head, _ = seen(event([(b"x-a", b"\xe9\xff\x80")], query=b"\xe9=%00&\xff"))
    assert (head["headers"]["x-a"], head["query"]) == ("\xe9\xff\x80", "\xe9=%00&\xff")


def test_a_body_that_is_no_base64_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        guest_http.body({"body": "!!", "isBase64Encoded": True})


def test_a_response() -> None:
    answer = sent({"status": 201, "headers": {"Content-Type": "text/html", "X-Thing": "a\tb"}}, b"\xff\x00")
    assert (answer.status_code, answer.content_type, answer.body) == (201, "text/html", b"\xff\x00")
    wire = to_answer(rendered(answer))
    assert (wire.status, wire.body, wire.host) == (201, b"\xff\x00", {})
    assert sorted(wire.headers) == [
        (b"content-type", b"text/html"),
        (b"x-function", b"f@1"),
        (b"x-invocation", b"i-1"),
        (b"x-thing", b"a\tb"),
    ]


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"plain",
        b"\xff\xfe",
        b"{",
        b"{}",
        b'{"a": 1}\nb',
        b'[{"status": 200}]',
        b' {"status": 200}\n',
        b'{"status": 200, "x": ' + b"[" * 15_000 + b"\n",
        b'{"status": 200, "x": "' + b"y" * 20_000 + b'"}\n',
        b'{"status": ' + b"1" * 9000 + b"}\n",
        '{"status": 200}'.encode("utf-16"),
        b'{"status": 200, "a": "\xff"}\n',
    ],
)
def test_what_has_no_head_is_a_body(output: bytes) -> None:
    answer = guest_http.response(output, TOLD)
    assert (answer.status_code, answer.content_type, answer.body) == (200, "application/octet-stream", output)


def test_a_head_needs_no_line_feed() -> None:
    answer = guest_http.response(b'{"status": 404}', {})
    assert (answer.status_code, answer.body) == (404, b"")


@pytest.mark.parametrize("status", [199, 600, 0, -200, 101, "200", True, None, 200.0, [200], 10**30, float("nan")])
def test_a_status_that_cannot_be_sent(status: Any) -> None:
    with pytest.raises(FunctionFailed, match="status"):
        sent({"status": status})


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nset-cookie: b"},
        {"x": "a\nb"},
        {"x": "a\rb"},
        {"x": "a\0b"},
        {"x": "\u2028"},
        {"x": "\ud800"},
        {"x\r\ny": "a"},
        {"x y": "a"},
        {"x:": "a"},
        {"": "a"},
        {"\ud800": "a"},
        {"é": "a"},
        {"x" * 129: "a"},
        {"x": 1},
        {"x": None},
        {"x": ["a"]},
        {"content-type": "a\nb"},
        {"content-length": "1\r\n"},
        {f"x-{number}": "" for number in range(HEADERS_MAX + 1)},
        {f"x-{number}": "y" * 400 for number in range(60)} | {"status": "x"},
        [],
        None,
        "x",
    ],
)
def test_headers_that_cannot_be_sent(headers: Any) -> None:
    head = {"status": 200, "headers": headers}
    if len(json.dumps(head)) > 17_000:  # too long for a head: it is a body, whole
        assert len(sent(head).body) == len(json.dumps(head)) + 1
        return
    with pytest.raises(FunctionFailed, match="header"):
        sent(head)


def test_as_many_headers_as_may_be_are_sent() -> None:
    names = {f"x-{number}" for number in range(HEADERS_MAX)}
    headers = sent({"status": 200, "headers": dict.fromkeys(names, "1")}).headers
    assert names | set(TOLD) <= set(headers)


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "transfer-encoding", "Upgrade", "Trailer", "Content-Length", "Date", "Server"),
        *("hzc-call", "HZC-Wake", "hzc-stream", "hzc-wait", "X-Request-Id", "x-function", "X-INVOCATION"),
    ],
)
def test_headers_that_are_not_a_functions_to_set(name: str) -> None:
    """Not the connection's, not those that steer the host, and not what the platform says of the call."""
    wire = to_answer(rendered(sent({"status": 200, "headers": {name: "forged", "x-own": "1"}}, b"x")))
    assert wire.host == {}
    assert sorted(wire.headers) == [
        (b"content-type", b"application/octet-stream"),
        (b"x-function", b"f@1"),
        (b"x-invocation", b"i-1"),
        (b"x-own", b"1"),
    ]


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_body_where_there_can_be_none_is_refused(status: int) -> None:
    """A client would read it as the next response on the connection."""
    assert sent({"status": status}).status_code == status
    with pytest.raises(FunctionFailed, match="no body"):
        sent({"status": status}, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
