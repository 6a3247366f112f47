"""Functions on a real platform, called over HTTP while it is used, stopped and restarted."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from hanzo_compute import wiring
from hanzo_compute.model.bounds import RESPONSE_MAX
from tests.e2e.test_streaming import Stream
from tests.support.live import Platform, until
from tests.support.wasm import wat

ECHO = wat("""(module (memory (export "memory") 100)
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "handle") (param $at i32) (param $size i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $size)))))""")
SITE = """
import json, sys
head = json.loads(sys.stdin.buffer.readline())
body = sys.stdin.buffer.read()
print("called", head["path"], file=sys.stderr)
if head["path"] == "/bytes":
    out = {"status": 201, "headers": {"content-type": "image/x", "x-own": "1", "x-invocation": "forged"}}
    data = body[::-1]
else:
    out = {"status": 200, "headers": {"content-type": "application/json"}}
    data = json.dumps(head).encode()
if head["path"] == "/none":
    out, data = {"status": 204}, b""
sys.stdout.buffer.write(json.dumps(out).encode() + b"\\n" + data)
"""


class Http:
    """Raw calls; nothing is repeated."""

    def __init__(self, platform: Platform, key: str | None = "") -> None:
        self.url = platform.url
        self.headers = {} if key is None else {"Authorization": f"Bearer {key or platform.key}"}
        self.pool = urllib3.PoolManager(maxsize=8, retries=False)

    def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.pool.request(method, self.url + path, body=body, headers=self.headers | named, timeout=60)


def deploy(platform: Platform, name: str, program: bytes | str, language: str = "python", **fields: Any) -> None:
    client = wiring.functions_client(platform.url, platform.key)
    source: dict[str, str] = {"code": program, "language": language} if isinstance(program, str) else {}
    if isinstance(program, bytes):
        source = {"module": platform.client().upload_blob(program)}
        fields = {"abi": "reactor"} | fields
    client.deploy(name, {"source": source} | fields)


@pytest.fixture(scope="module")
def http(platform: Platform) -> Http:
    return Http(platform)


def test_a_module_python_and_javascript(platform: Platform, http: Http) -> None:
    deploy(platform, "echo", ECHO)
    deploy(platform, "upper", "import sys; sys.stdout.write(sys.stdin.read().upper())")
    deploy(platform, "script", "std.out.puts(std.in.readAsString().toUpperCase())", "javascript")
    data = bytes(range(256)) * 64
    found = http("POST", "/v1/functions/echo/invoke", data)
    assert (found.status, found.data, found.headers["x-function"]) == (200, data, "echo@1")
    assert found.headers["content-type"] == "application/octet-stream"
    for name in ("upper", "script"):
        found = http("POST", f"/v1/functions/{name}/invoke", b"abc")
        assert (found.status, found.data) == (200, b"ABC"), found.data
    assert http("POST", "/v1/functions/echo/invoke?ref=7", b"").status == 404
    assert http("GET", "/v1/functions/echo/invoke").status == 405
    assert Http(platform, None)("POST", "/v1/functions/echo/invoke", b"").status == 401


def test_a_site(platform: Platform, http: Http) -> None:
    deploy(platform, "site", SITE, public=True)
    anybody = Http(platform, None)
    head = anybody("GET", "/fn/site/a/b%20c?x=1&x=2", x_thing="é".encode().decode("latin-1"), cookie="a=1").json()
    assert (head["method"], head["path"], head["query"], head["body_size"]) == ("GET", "/a/b c", "x=1&x=2", 0)
    assert head["headers"]["cookie"] == "a=1"
    assert anybody("GET", "/fn/site").json()["path"] == "/"
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert anybody(method, "/fn/site/x").json()["method"] == method
    found = anybody("POST", "/fn/site/bytes", b"\xff\0\xfe")
    assert (found.status, found.data, found.headers["content-type"]) == (201, b"\xfe\0\xff", "image/x")
    assert found.headers["x-invocation"].startswith("i-")
    assert found.headers["x-own"] == "1"
    asked = anybody("HEAD", "/fn/site/x")
    assert (asked.status, asked.data) == (200, b"")
    nothing = anybody("GET", "/fn/site/none")
    assert (nothing.status, nothing.data, nothing.headers.get("content-length")) == (204, b"", None)
    assert anybody("GET", "/fn/site/after").json()["path"] == "/after", "the connection is out of step"
    assert anybody("TRACE", "/fn/site").status == 405
    mine = http("GET", "/fn/site/mine").json()
    assert platform.key not in json.dumps(mine)

    def logged() -> bool:
        lines = wiring.functions_client(platform.url, platform.key).logs("site")
        return any("called /mine" in line["text"] for line in lines)

    assert until(logged, 120, "what it wrote is in its log")


def test_canary_and_rollback(platform: Platform, http: Http) -> None:
    for number in (1, 2):
        deploy(platform, "canary", f"print({number})")
    client = wiring.functions_client(platform.url, platform.key)
    client.set_alias("canary", "live", {"1": 70, "2": 30})
    found = Counter(http("POST", "/v1/functions/canary/invoke", b"").headers["x-function"] for _ in range(100))
    assert found["canary@2"] in range(10, 55), found
    client.set_alias("canary", "live", {"2": 100})
    assert http("POST", "/v1/functions/canary/invoke", b"").data == b"2\n"
    client.rollback("canary")
    client.rollback("canary")
    client.rollback("canary")
    assert {http("POST", "/v1/functions/canary/invoke", b"").data for _ in range(10)} == {b"1\n"}
    assert http("POST", "/v1/functions/canary/invoke?ref=2", b"").data == b"2\n"


def test_one_at_a_time(platform: Platform, http: Http) -> None:
    deploy(platform, "alone", "import sys, time; time.sleep(int(sys.stdin.read()))", concurrency=1)
    http("POST", "/v1/functions/alone/invoke", b"0")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: http("POST", "/v1/functions/alone/invoke", b"6"), range(4)))
    assert sorted(each.status for each in found) == [200, 429, 429, 429]
    assert all(each.headers["retry-after"] == "1" for each in found if each.status == 429)
    assert http("POST", "/v1/functions/alone/invoke", b"0").status == 200


def test_an_answer_is_whole_or_none(platform: Platform, http: Http) -> None:
    deploy(platform, "large", "import sys; sys.stdout.buffer.write(b'x' * int(sys.stdin.read()))")
    whole = http("POST", "/v1/functions/large/invoke", str(RESPONSE_MAX).encode())
    assert (whole.status, len(whole.data)) == (200, RESPONSE_MAX)
    for size in (RESPONSE_MAX + 1, 5 << 20):
        found = http("POST", "/v1/functions/large/invoke", str(size).encode())
        assert (found.status, found.json()["code"]) == (502, "function_failed"), size
    deploy(platform, "careless", wat_that_writes_five_mib(), abi="command")
    found = http("POST", "/v1/functions/careless/invoke", b"")
    assert (found.status, found.json()["code"]) == (502, "function_failed")


def wat_that_writes_five_mib() -> bytes:
    """A command that does not look whether its writes succeed."""
    return wat("""(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 100)
      (func (export "_start")
        (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 5242880))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))""")


def test_what_fails_says_why(platform: Platform, http: Http) -> None:
    deploy(platform, "fails", "raise ValueError('no good')")
    deploy(platform, "spins", "while True: pass", resources={"timeout_s": 1})
    found = http("POST", "/v1/functions/fails/invoke", b"").json()
    assert (found["status"], found["code"], found["exit_code"]) == (502, "function_failed", 1)
    assert "ValueError: no good" in found["detail"]
    found = http("POST", "/v1/functions/spins/invoke", b"").json()
    assert (found["status"], found["code"]) == (504, "function_timed_out")


def test_by_cli(platform: Platform, tmp_path: Path) -> None:
    program = tmp_path / "hello.py"
    program.write_text("import sys\nprint('hello', sys.stdin.read())\nprint('was here', file=sys.stderr)\n")
    assert platform.hzc("fn", "deploy", "hello", str(program)).returncode == 0
    assert platform.hzc("fn", "invoke", "hello", "-d", "ada").stdout == b"hello ada\n"
    assert platform.hzc("fn", "invoke", "hello@1", "-i", "-", stdin=b"grace").stdout == b"hello grace\n"
    told = json.loads(platform.hzc("fn", "invoke", "hello", "-o", "json").stdout)
    assert (told["output"], told["function"]) == ("hello \n", "hello@1")
    assert platform.hzc("fn", "invoke", "hello@nowhere").returncode == 2
    until(lambda: b"was here" in platform.hzc("fn", "logs", "hello").stdout, 120, "the log")
    program.write_text("raise SystemExit(3)")
    platform.hzc("fn", "deploy", "hello", str(program))
    failed = platform.hzc("fn", "invoke", "hello")
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert b"exit code 3" in failed.stderr


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Platform]:
    with Platform(tmp_path / "home", fronts=2) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_restarts_under_calls_fail_none(another: Platform) -> None:
    deploy(another, "echo", ECHO, concurrency=100)
    deploy(another, "naps", "import time; time.sleep(1); print('up')", concurrency=100)
    failed: list[str] = []
    count = [0]
    over = threading.Event()

    def stream(name: str, number: int) -> None:
        http = Http(another)
        while not over.is_set():
            try:
                found = http("POST", f"/v1/functions/{name}/invoke", b"%d" % number)
                count[0] += 1
                if found.status != 200:
                    failed.append(f"{name}: {found.status} {found.data[:200]!r}")
            except Exception as error:
                failed.append(f"{name}: {error!r}")

    threads = [threading.Thread(target=stream, args=(name, n)) for name in ("echo", "naps") for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        done = another.hzc("restart", timeout=250)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert done.returncode == 0, done
    assert failed == []
    assert count[0] > 50


@pytest.mark.slow
def test_a_stop_in_the_middle_of_a_call_is_quick_and_answered(another: Platform) -> None:
    deploy(another, "sleeps", "import time; time.sleep(24)")
    deploy(another, "naps", "import time; print('here', flush=True); time.sleep(1.5); print('up')", concurrency=100)
    with ThreadPoolExecutor(6) as threads:  # so that each front has its workers
        for each in [threads.submit(Http(another), "POST", "/v1/functions/naps/invoke", b"") for _ in range(6)]:
            assert each.result().status == 200
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(Http(another), "POST", "/v1/functions/sleeps/invoke", b"")
        time.sleep(1)  # its answer is plain, so that nothing says when it has come
        short = Stream(another, "naps")
        assert next(iter(short))[1]["text"] == "here\n"  # it runs
        began = time.monotonic()
        assert another.stop() == 0
        assert time.monotonic() - began < 18
        assert short.rest()[0] == b"up\n"
        refused = long.result(60)
    assert (refused.status, refused.json()["code"]) == (503, "unavailable")
