"""Requests that no honest client sends: each is refused clearly or harmless, and the next client is served."""

from __future__ import annotations

import pytest

from tests.support.live import Platform
from tests.support.raw import NOTHING, Raw, Response, ask, head, post

SPEC = b'{"source": {"code": "print(1)", "language": "python"}}'
POST = b"POST /v1/validate HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"

MALFORMED = {
    "folded header": GET + b"Host: x\r\nA: b\r\n  c\r\n\r\n",
    "space before the first header": GET + b" Host: x\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "length then chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked then length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked to 1.0": b"POST /v1/validate HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "signed length": POST + b"Content-Length: +1\r\n\r\nx",
    "length of two numbers": POST + b"Content-Length: 1 1\r\n\r\nx",
    "length in a list": POST + b"Content-Length: 1,1\r\n\r\nx",
    "hexadecimal length": POST + b"Content-Length: 0x1\r\n\r\nx",
    "empty length": POST + b"Content-Length: \r\n\r\n",
    "length beyond numbers": POST + b"Content-Length: 99999999999999999999999\r\n\r\nx",
    "space before colon": POST + b"Content-Length : 1\r\n\r\nx",
    "negative chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    "chunk beyond numbers": POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n",
    "chunk longer than said": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    "chunk with a bare newline": POST + b"Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
    "bare newlines": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "bare carriage return": GET + b"Host: x\rA: b\r\n\r\n",
    "NUL in a value": GET + b"Host: x\r\nA: b\x00c\r\n\r\n",
    "NUL in the path": b"GET /healthz\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw unicode in the path": "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "header without colon": GET + b"Host: x\r\nfoo\r\n\r\n",
    "header without name": GET + b"Host: x\r\n: foo\r\n\r\n",
    "no host": GET + b"\r\n",
    "two hosts": GET + b"Host: x\r\nHost: y\r\n\r\n",
    "lower-case method": b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/9.9": b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_can_be_read_in_two_ways_is_read_in_none(platform: Platform, data: bytes) -> None:
    refused = ask(platform.port, data)
    assert refused.status == 400
    assert refused.problem()["errors"][0]["field"]
    assert ask(platform.port, head("GET", "/healthz")).status == 200


def test_a_second_request_behind_a_broken_one_is_never_read(platform: Platform) -> None:
    """The body of the first, as a proxy would see it, is no request to us."""
    smuggled = head("GET", "/healthz", [("Connection", "close")])
    with Raw(platform.port) as raw:
        raw.send(POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled)
        assert raw.read().status == 400
        assert raw.ended()


def test_a_good_request_before_a_broken_one_is_answered(platform: Platform) -> None:
    with Raw(platform.port) as raw:
        raw.send(head("GET", "/healthz") + b"garbage\r\n\r\n")
        answer = raw.read()
        assert answer.status == 200
        assert raw.ended()


def test_trailers_are_no_headers(platform: Platform) -> None:
    """A credential behind the body would escape whatever looked at the head."""
    chunk = b"%x\r\n%s\r\n0\r\n" % (len(SPEC), SPEC)
    trailer = f"Authorization: Bearer {platform.key}\r\nContent-Type: text/plain\r\n\r\n".encode()
    with Raw(platform.port) as raw:
        raw.send(POST + b"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n" + chunk + trailer)
        assert raw.read().status == 401
        # The connection goes on: trailers themselves are allowed.
        raw.send(head("GET", "/healthz"))
        assert raw.read().status == 200


def test_endless_trailers_and_chunk_extensions_are_cut_off(platform: Platform) -> None:
    for tail in (b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 40_000, b"1;" + b"e" * 400_000):
        with Raw(platform.port) as raw:
            raw.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + tail)
            assert raw.read().status in (431, 0)
            assert raw.ended()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_both_versions_are_served(platform: Platform, version: str) -> None:
    with Raw(platform.port) as raw:
        raw.send(f"GET /healthz HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert raw.read().status == 200
        assert raw.ended()


def test_the_absolute_form_is_the_same_request(platform: Platform) -> None:
    assert ask(platform.port, head("GET", "http://evil.example/v1/jobs?limit=1", key=platform.key)).status == 200
    assert ask(platform.port, head("GET", "http://evil.example/healthz")).status == 200


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "SOURCE", "MKCOL"])
def test_methods_that_no_route_has_are_not_allowed(platform: Platform, method: str) -> None:
    refused = ask(platform.port, head(method, "/v1/jobs", [("Max-Forwards", "0"), ("Cookie", "secret=1")]))
    assert refused.status == 405
    assert refused.headers["allow"] == "get, post"
    assert b"secret" not in refused.body


def test_the_star_is_no_path(platform: Platform) -> None:
    assert ask(platform.port, b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").status == 404


@pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.2"])
def test_an_upgrade_is_not_made_and_ends_the_connection(platform: Platform, protocol: str) -> None:
    headers = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", protocol), ("HTTP2-Settings", "AAMAAABk")]
    with Raw(platform.port) as raw:
        raw.send(head("GET", "/healthz", headers) + head("GET", "/v1/jobs", key=platform.key))
        answer = raw.read()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert raw.ended()


def test_expect_gets_its_continue_only_when_the_body_is_wanted(platform: Platform) -> None:
    headers = [("Content-Length", str(len(SPEC))), ("Expect", "100-continue")]
    with Raw(platform.port) as raw:
        raw.send(head("POST", "/v1/validate", headers, key=platform.key))
        assert raw.read().status == 100
        raw.send(SPEC)
        assert raw.read().status == 200
    with Raw(platform.port) as raw:
        raw.send(head("POST", "/v1/nothing", headers, key=platform.key))
        answer = raw.read()
        assert (answer.status, answer.headers["connection"]) == (404, "close")


@pytest.mark.parametrize("name", ["hzc-wake", "Hzc-Stream", "HZC-WAIT"])
def test_headers_of_the_host_do_not_come_in(platform: Platform, name: str) -> None:
    answer = ask(platform.port, head("GET", "/healthz", [(name, "JOB#1"), ("Connection", name)]))
    assert answer.status == 200
    assert not [each for each in answer.headers if each.startswith("hzc-")]


def test_many_and_huge_headers_are_refused(platform: Platform) -> None:
    many = [(f"X-{n}", "y") for n in range(3_000)]
    assert ask(platform.port, head("GET", "/healthz", many)).problem()["code"] == "headers_too_large"
    huge = ask(platform.port, head("GET", "/healthz", [("X", "y" * 20_000)]))
    assert huge.problem()["status"] == 431
    assert ask(platform.port, head("GET", "/" + "y" * 20_000)).status == 431
    endless = ask(platform.port, b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 200_000)
    assert endless.status in (431, 0)


def test_pipelined_requests_are_answered_in_order(platform: Platform) -> None:
    with Raw(platform.port) as raw:
        raw.send(head("GET", "/healthz") + head("GET", "/nowhere") + head("GET", "/healthz") + head("HEAD", "/healthz"))
        assert [raw.read().status for _ in range(3)] == [200, 404, 200]


def test_more_than_a_few_pipelined_requests_end_the_connection(platform: Platform) -> None:
    """Each costs a hundred times its bytes: a segment of them must not."""
    job = platform.client().submit({"source": {"code": "import time\ntime.sleep(1)", "language": "python"}}).job["id"]
    with Raw(platform.port) as raw:
        waits = head("GET", f"/v1/jobs/{job}?wait_s=0.2&seen_state=queued", key=platform.key)
        raw.send(waits + head("GET", "/healthz") * 2_000)
        answers: list[Response] = []
        while (answer := raw.read()) != NOTHING:
            answers.append(answer)
        assert 1 <= len(answers) <= 20
        assert {each.status for each in answers} == {200}
        assert answers[-1].headers["connection"] == "close"


def test_a_large_body_waits_for_the_answer_before_it(platform: Platform) -> None:
    job = platform.client().submit({"source": {"code": "import time\ntime.sleep(1)", "language": "python"}}).job["id"]
    with Raw(platform.port) as raw:
        waits = head("GET", f"/v1/jobs/{job}?wait_s=0.2&seen_state=queued", key=platform.key)
        raw.send(waits + post("/v1/validate", b" " * 200_000 + SPEC, platform.key))
        assert raw.read().status == 200
        assert raw.ended()


PATHS = [
    "/_blobs/../../etc/passwd",
    "/_blobs/%2e%2e/%2e%2e/etc/passwd",
    "/_blobs/%252e%252e/etc/passwd",
    "/_blobs/..%2f..%2fkeys%2fpresign.key",
    "/_blobs/..%5c..%5ckeys/presign.key",
    "/_blobs/default/..%00/b1-" + "0" * 64,
    "/_blobs/default/b1-" + "0" * 64 + "%00.key",
    "/_blobs//etc/passwd",
    "/_blobs/default/" + "a" * 5_000,
    "/_blobs/default/%ff%fe",
    "/_blobs/%E2%80%AE/b1-" + "0" * 64,
    "/_blobs/",
    "/_blobs",
]
JOB_PATHS = [
    "/v1/jobs/..%2f..%2fhealthz",
    "/v1/jobs/../../healthz",
    "/v1/jobs/%2e%2e",
    "/v1/jobs/%252e%252e%252fhealthz",
    "/v1/jobs/j-1%00",
    "/v1/jobs/j-1%0d%0aSet-Cookie:x",
    "/v1/jobs/..%5cMETA",
    "/v1/jobs/%23META",
    "/v1/jobs/j-1%23/events",
    "/v1/jobs/%ff%fe%fd/events",
    "/v1/jobs/%F0%9F%92%A9/result",
    "/v1/jobs//events",
    "/v1/jobs/" + "j" * 9_000,
    "/v1/jobs/*",
    "/v1/jobs/%s%n",
    "/V1/JOBS",
    "/v1/jobs/",
    "//v1/jobs",
    "/./v1/jobs",
    "/v1/./jobs",
    "/v1/dead-letters/../jobs",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leaves_the_blobs(platform: Platform, path: str) -> None:
    for method in ("GET", "HEAD"):
        refused = ask(platform.port, head(method, path, key=platform.key))
        assert refused.status in (400, 403, 404)
    refused = ask(platform.port, head("PUT", path, [("Content-Length", "1")]) + b"x")
    assert refused.status in (400, 403, 404)
    assert refused.problem()["code"] in ("permission_denied", "not_found", "invalid_request")


@pytest.mark.parametrize("path", JOB_PATHS)
def test_no_path_reaches_another_route(platform: Platform, path: str) -> None:
    for method, tail in (("GET", ""), ("POST", "/cancel"), ("POST", "/rerun")):
        refused = ask(platform.port, head(method, path + tail, key=platform.key))
        assert refused.status in (400, 404, 405), path
        assert refused.problem()["code"] in ("not_found", "method_not_allowed", "invalid_request")
        assert "set-cookie" not in refused.headers


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1e3",
        "limit=99999999999999999999999",
        "limit=1&limit=2",
        "limit",
        "=1",
        "cursor=%00",
        "cursor=" + "x" * 600,
        "cursor=%ff",
        "cursor=..%2f..%2f",
        "state=%00",
        "state=queued&state=placed",
        "label=a%00=b",
        "label=%F0%9F%92%A9",
        "label==",
        "__proto__=1",
        "&".join(f"p{n}=1" for n in range(1_000)),
    ],
)
def test_queries_are_refused_by_name(platform: Platform, query: str) -> None:
    refused = ask(platform.port, head("GET", f"/v1/jobs?{query}", key=platform.key))
    assert refused.status == 400
    assert refused.problem()["errors"][0]["field"]
    assert len(refused.body) < 20_000


@pytest.mark.parametrize("wait", ["nan", "inf", "-1", "1e400", "21", "0x1", ""])
def test_nobody_waits_for_ever(platform: Platform, wait: str) -> None:
    job = "j-" + "0" * 26
    assert ask(platform.port, head("GET", f"/v1/jobs/{job}?wait_s={wait}", key=platform.key)).status == 400


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "Basic eDp5", "Bearer " + "x" * 9_000, "bearer hzk_\xff", "\xa0"]
)
def test_no_odd_credential_is_one(platform: Platform, value: str) -> None:
    refused = ask(platform.port, head("GET", "/v1/jobs", [("Authorization", value)]))
    assert refused.status == 401
    twice = head("GET", "/v1/jobs", [("Authorization", f"Bearer {platform.key}"), ("Authorization", value)])
    assert ask(platform.port, twice).status == 401


@pytest.mark.parametrize("key", ["", " ", "a\tb", "x" * 256, "\xe9"])
def test_no_odd_idempotency_key_is_one(platform: Platform, key: str) -> None:
    refused = ask(platform.port, post("/v1/jobs", SPEC, platform.key, ("Idempotency-Key", key)))
    assert refused.status == 400
    assert refused.problem()["errors"][0]["field"] == "Idempotency-Key"
