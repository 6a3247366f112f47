"""Bodies that are too large, too deep, of another kind or encoding, or that lie: refused clearly, in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hanzo_compute.model import bounds
from tests.support.live import Platform, until
from tests.support.raw import NOTHING, Raw, Response, ask, head, open_files, post, rss_kib

SOURCE = {"code": "print(1)", "language": "python"}
SPEC = json.dumps({"source": SOURCE}).encode()
OPEN = SPEC.decode()[:-1]
"""A spec as text, up to where more fields can follow."""
GROWTH_KIB = 48 * 1024
"""What a front may grow by while a gigabyte is sent to it: its buffers, and what the allocator keeps."""


def refused(answer: Response, status: int = 400, *, code: str | None = None) -> dict[str, Any]:
    assert answer.status == status, answer
    assert len(answer.body) < 20_000
    problem = answer.problem()
    assert code is None or problem["code"] == code
    return problem


def validate(platform: Platform, body: bytes, *headers: tuple[str, str]) -> Response:
    return ask(platform.port, post("/v1/validate", body, platform.key, *headers))


def front(platform: Platform) -> int:
    pid = platform.pid("front-1")
    assert pid is not None
    return pid


DEEP = {
    "array": "[" * 100_000 + "]" * 100_000,
    "object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "unfinished": "[" * 100_000,
    "label": OPEN + ',"labels":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}",
    "argument": OPEN + ',"args":[' + '{"a":[' * 50_000 + "]}" * 50_000 + "]}",
    "source": '{"source":' + "[" * 100_000 + "]" * 100_000 + "}",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/validate", "/v1/blobs"])
def test_deep_nesting_is_refused(platform: Platform, path: str, text: str) -> None:
    problem = refused(ask(platform.port, post(path, text.encode(), platform.key)))
    assert problem["errors"][0]["field"] == "(body)"


WRONG: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], [1], {}, {"a": 1}, [[]], 2**63, 2**200, "\x00", "é" * 100]
FIELDS = [
    "runtime", "profile", "source", "source.module", "source.code", "source.language", "args", "args.0", "env",
    "env.A", "input", "input.inline", "input.inline_base64", "input.blob", "resources", "resources.memory_mib",
    "resources.timeout_s", "resources.fuel", "deadline", "retry", "retry.max_attempts", "retry.backoff_s", "labels",
    "labels.a", "log_limit",
]  # fmt: skip


def with_field(field: str, value: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"source": dict(SOURCE)}
    *path, last = field.split(".")
    holder: Any = spec
    for step in path:
        holder = holder.setdefault(step, {})
    if last == "0":
        spec["args"] = [value]
    else:
        holder[last] = value
    return spec


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_type_is_refused_by_the_name_of_its_field(platform: Platform, field: str) -> None:
    with Raw(platform.port) as raw:
        answers = [
            raw.send(post("/v1/validate", json.dumps(with_field(field, value)).encode(), platform.key)).read()
            for value in WRONG
        ]
    for value, answer in zip(WRONG, answers, strict=True):
        if answer.status != 200:
            found = refused(answer)["errors"][0]["field"]
            assert found.startswith(field.split(".", maxsplit=1)[0]), (value, found)
        else:
            assert answer.json()["valid"] is True
    statuses = [answer.status for answer in answers]
    assert statuses.count(400) >= len(WRONG) - 5


@pytest.mark.parametrize(
    "number",
    ["1" * 5_000, "1" * 900_000, "-" + "1" * 5_000, "1e400", "1E+999999999", "1e-999999999",
     "NaN", "Infinity", "-Infinity", "0x10", "1_000", "01", "1.", ".5", "+1", "--1", "9007199254740993", "1.0", "1e2"],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused(platform: Platform, number: str) -> None:
    body = f'{OPEN},"log_limit":{number}}}'
    problem = refused(validate(platform, body.encode()))
    assert problem["errors"][0]["field"] in ("(body)", "log_limit")
    assert "sys." not in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"source":{"code":"1","language":"python"},"source":{"code":"2","language":"python"}}',
        b'{"source":{"code":"1","code":"2","language":"python"}}',
        b'{"source":{"code":"1","language":"python"},"labels":{"a":"1","a":"2"}}',
        b'{"source":{"code":"1","language":"python"},"env":{"A":"1","\\u0041":"2"}}',
    ],
)
def test_a_key_twice_is_refused_wherever_it_is(platform: Platform, body: bytes) -> None:
    assert "twice" in refused(validate(platform, body))["detail"]


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("labels", {"labels": {"a\x00b": "x"}}),
        ("labels", {"labels": {"a": "x\x00"}}),
        ("env", {"env": {"A\x00B": "x"}}),
        ("env", {"env": {"A": "x\x00"}}),
        ("args", {"args": ["x\x00"]}),
        ("source", {"source": {"code": "print(1)\x00", "language": "python"}}),
        ("input", {"input": {"inline": "x\x00"}}),
        ("deadline", {"deadline": "2030-01-01T00:00:00Z\x00"}),
        ("source", {"source": {"module": "b1-" + "0" * 63 + "\x00"}}),
    ],
)
def test_a_nul_is_refused_in_every_text(platform: Platform, field: str, spec: dict[str, Any]) -> None:
    problem = refused(validate(platform, json.dumps({"source": SOURCE} | spec).encode()))
    assert problem["errors"][0]["field"].startswith(field)


TEXT = SPEC.decode()
ENCODINGS = {
    "raw NUL": b"\x00" + SPEC,
    "NUL inside": SPEC.replace(b"print", b"pri\x00nt"),
    "invalid UTF-8": SPEC.replace(b"print", b"pri\xffnt"),
    "overlong": SPEC.replace(b"print", b"pri\xc0\xafnt"),
    "surrogate in UTF-8": SPEC.replace(b"print", b"pri\xed\xa0\x80nt"),
    "escaped lone surrogate": SPEC.replace(b"print", b"pri\\ud800nt"),
    "cut character": SPEC[:-1] + b"\xe2\x82",
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16LE": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "UTF-32BE": TEXT.encode("utf-32-be"),
    "BOM": b"\xef\xbb\xbf" + SPEC,
    "UTF-7": TEXT.encode("utf-7").replace(b"{", b"+AHs-"),
    "Latin-1": SPEC.replace(b"print", "prüfe".encode("latin-1")),
    "two values": SPEC + SPEC,
    "nothing": b"",
    "space": b"   ",
    "no object": b"[]",
    "null": b"null",
    "text": b'"source"',
}  # fmt: skip


@pytest.mark.parametrize("body", ENCODINGS.values(), ids=ENCODINGS)
def test_only_json_in_utf_8_is_read(platform: Platform, body: bytes) -> None:
    for path in ("/v1/validate", "/v1/blobs"):
        assert refused(ask(platform.port, post(path, body, platform.key)))["errors"]


@pytest.mark.parametrize(
    "media",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "", "*/*",
     "application/json; charset=utf-16", "application/json; charset=latin-1", "application/json; boundary=x",
     "application/json, text/plain", "application/jsonp", "text/plain; application/json"],
)  # fmt: skip
def test_other_media_are_refused(platform: Platform, media: str) -> None:
    problem = refused(validate(platform, SPEC, ("Content-Type", media)))
    assert problem["errors"][0]["field"] == "Content-Type"


@pytest.mark.parametrize(
    "media",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_may_say_that_it_is_utf_8(platform: Platform, media: str) -> None:
    assert validate(platform, SPEC, ("Content-Type", media)).status == 200


def test_a_zip_bomb_is_not_expanded(platform: Platform) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    before = rss_kib(front(platform))
    for encoding in ("gzip", "deflate", "br", "identity, gzip", "x-unknown"):
        answer = validate(platform, bomb, ("Content-Encoding", encoding))
        refused(answer, 415, code="unsupported_media_type")
    assert validate(platform, SPEC, ("Content-Encoding", "identity")).status == 200
    assert rss_kib(front(platform)) - before < GROWTH_KIB


def test_calls_that_take_no_body_refuse_one(platform: Platform) -> None:
    job = platform.client().submit({"source": SOURCE}).job["id"]
    calls = [("POST", f"/v1/jobs/{job}/cancel"), ("POST", f"/v1/jobs/{job}/rerun"), ("GET", f"/v1/jobs/{job}")]
    for method, path in calls:
        request = head(method, path, [("Content-Length", "11"), ("Content-Type", "application/json")], key=platform.key)
        problem = refused(ask(platform.port, request + b'{"force":1}'))
        assert problem["errors"][0]["field"] == "(body)"
    assert ask(platform.port, head("POST", calls[1][1], [("Content-Length", "0")], key=platform.key)).status == 201


# Size


def flood(port: int, request: bytes, piece: bytes, total: int) -> tuple[Response, int]:
    """Send a head, then pieces up to ``total`` bytes or until nobody takes more: the answer, and bytes sent."""
    sent = 0
    with Raw(port) as raw:
        raw.send(request)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < total:
                sent += raw.sock.send(piece)
        return raw.read(), sent


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


GIGABYTE = 10**9
PIECE = b" " * 65_536


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/blobs", "/v1/validate", "/v1/leases", "/healthz", "/v1/nowhere"])
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_gigabyte_is_refused_early(platform: Platform, path: str, chunked: bool) -> None:
    pid, before = front(platform), rss_kib(front(platform))
    length = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(GIGABYTE))
    request = head("POST", path, [length, ("Content-Type", "application/json")], key=platform.key)
    answer, sent = flood(platform.port, request, chunk(PIECE) if chunked else PIECE, GIGABYTE)
    assert answer == NOTHING or answer.status in (404, 405, 413)
    assert sent < 64 * 2**20, "only what the sockets' buffers hold, and what is read and dropped of a refused body"
    assert rss_kib(pid) - before < GROWTH_KIB


def upload_url(platform: Platform, data: bytes, size: int | None = None) -> tuple[str, Path]:
    """Path of a presigned URL, and the folder where its file will be."""
    digest = hashlib.sha256(data).hexdigest()
    request = json.dumps({"sha256": digest, "size": len(data) if size is None else size}).encode()
    answer = ask(platform.port, post("/v1/blobs", request, platform.key))
    assert answer.status == 200, answer
    url = urlsplit(answer.json()["upload"]["url"])
    return f"{url.path}?{url.query}", platform.home / "blobs" / "default" / digest[:2]


def left(folder: Path) -> list[str]:
    """What is in a folder of blobs, or on its way to any."""
    places = (folder, folder.parents[1] / ".new")
    return [each.name for place in places if place.exists() for each in place.glob("*")]


def put(path: str, length: tuple[str, str]) -> bytes:
    return head("PUT", path, [length])


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_gigabyte_to_a_presigned_url_is_not_taken(platform: Platform, chunked: bool) -> None:
    path, folder = upload_url(platform, b"small %d" % chunked)
    before = rss_kib(front(platform))
    length = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(GIGABYTE))
    answer, sent = flood(platform.port, put(path, length), chunk(PIECE) if chunked else PIECE, GIGABYTE)
    assert answer == NOTHING or answer.status == 413
    assert sent < 64 * 2**20
    assert rss_kib(front(platform)) - before < GROWTH_KIB
    assert left(folder) == []


def test_the_refusal_of_a_large_body_is_told_to_a_client_that_asks_first(platform: Platform) -> None:
    path, _ = upload_url(platform, b"asks first")
    for request in (
        head("PUT", path, [("Content-Length", str(GIGABYTE)), ("Expect", "100-continue")]),
        head("POST", "/v1/jobs", [("Content-Length", str(GIGABYTE)), ("Expect", "100-continue")], key=platform.key),
    ):
        refused(ask(platform.port, request), 413, code="too_large")


def test_uploads_that_lie_leave_nothing(platform: Platform) -> None:
    data = b"the truth" * 10_000
    path, folder = upload_url(platform, data)
    lies = [
        (("Content-Length", str(len(data))), b"x" * len(data), 400),
        (("Content-Length", str(len(data) - 1)), data[:-1], 400),
        (("Content-Length", str(len(data) + 1)), data + b"x", 413),
        (("Transfer-Encoding", "chunked"), chunk(data[:-1]) + b"0\r\n\r\n", 400),
        (("Transfer-Encoding", "chunked"), chunk(data + b"x") + b"0\r\n\r\n", 413),
        (("Transfer-Encoding", "chunked"), b"0\r\n\r\n", 400),
    ]
    for length, body, status in lies:
        refused(ask(platform.port, put(path, length) + body), status)
        assert left(folder) == []
    assert ask(platform.port, put(path, ("Content-Length", str(len(data)))) + data).status == 200
    assert left(folder) == ["b1-" + hashlib.sha256(data).hexdigest()]


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_an_upload_that_is_cut_leaves_no_file(platform: Platform, how: str) -> None:
    data = how.encode() * 500_000
    path, folder = upload_url(platform, data)
    pid = front(platform)
    before = open_files(pid)
    cut = [Raw(platform.port) for _ in range(8)]
    for raw in cut:
        raw.send(put(path, ("Content-Length", str(len(data)))) + data[: len(data) // 2])
    until(lambda: len(left(folder)) == 8, 120, "the uploads are on their way")
    for raw in cut:
        if how == "half":
            raw.sock.shutdown(1)
        elif how == "reset":
            raw.sock.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0: no farewell
            raw.close()
        else:
            raw.close()
    until(lambda: left(folder) == [], 120, "the temporary files are gone")
    for raw in cut:
        raw.close()
    until(lambda: open_files(pid) <= before + 1, 120, "the descriptors are closed")


def test_strangers_cannot_make_the_front_read_large_bodies(platform: Platform) -> None:
    """Nothing over 16 KiB is read of somebody who is not known; and others are served meanwhile."""
    pid, before = front(platform), rss_kib(front(platform))
    size = bounds.BODY_MAX
    crowd = [Raw(platform.port) for _ in range(100)]
    for raw in crowd:
        raw.send(head("POST", "/v1/jobs", [("Content-Length", str(size)), ("Content-Type", "application/json")]))
    senders = [threading.Thread(target=raw.send, args=(b" " * (size - 1),)) for raw in crowd]
    for each in senders:
        each.start()
    for _ in range(20):
        assert validate(platform, SPEC).status == 200
    for each in senders:
        each.join(30)
    time.sleep(0.2)
    assert rss_kib(pid) - before < GROWTH_KIB
    for raw in crowd:
        raw.close()
    answer = ask(platform.port, post("/v1/jobs", b" " * 100_000 + SPEC, "hzk_nobody"))
    refused(answer, 401, code="unauthenticated")
    chunked = head("POST", "/v1/jobs", [("Transfer-Encoding", "chunked")]) + chunk(b" " * 20_000)
    refused(ask(platform.port, chunked), 401)


def test_large_bodies_of_known_callers_are_bounded_together(platform: Platform) -> None:
    """64 MiB are held at most: the next one is told to come back, small ones are served, and it recovers."""
    pid, before = front(platform), rss_kib(front(platform))
    size = bounds.BODY_MAX
    crowd = [Raw(platform.port) for _ in range(80)]
    for raw in crowd:
        raw.send(head("POST", "/v1/validate", [("Content-Length", str(size))], key=platform.key) + b" " * (size - 1))
    late = until(lambda: find_refused(platform), 120, "a large body is refused")
    problem = refused(late, 503, code="unavailable")
    assert late.headers["retry-after"] == "1"
    assert "large bodies" in problem["detail"]
    assert validate(platform, SPEC).status == 200
    grown = rss_kib(pid) - before
    print(f"front grew by {grown // 1024} MiB while 80 bodies of 1 MiB were held back")
    assert grown < 200 * 1024
    for raw in crowd:
        raw.close()
    until(lambda: validate(platform, b" " * 900_000 + SPEC).status == 200, 120, "it recovers")


def find_refused(platform: Platform) -> Response | None:
    answer = validate(platform, b" " * 900_000 + SPEC)
    return answer if answer.status == 503 else None
