"""What a function tries against its platform, its callers and other tenants."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from hanzo_compute import wiring
from tests.support.live import Platform
from tests.support.wasm import wat

LOOKS_AROUND = """
import json, os, sys
found = {"head": json.loads(sys.stdin.readline()), "env": dict(os.environ), "argv": sys.argv, "seen": {}}
for folder in ("/", "/in", "/in/..", "..", "/proc", "/proc/self", "/etc", "/root", "/home", "/tmp", "/dev"):
    try:
        found["seen"][folder] = sorted(os.listdir(folder))
    except OSError as error:
        found["seen"][folder] = type(error).__name__
for fd in range(3, 64):
    try:
        os.fstat(fd)
        found.setdefault("fds", []).append(fd)
    except OSError:
        pass
try:
    open("/in/main.py", "w").close()
    found["wrote"] = True
except OSError:
    found["wrote"] = False
print(json.dumps(found))
"""
LOGS = wat("""(module (import "hzc" "log" (func $log (param i32 i32 i32) (result i32))) (memory (export "memory") 2)
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "handle") (param i32 i32) (result i64)
    (loop $again (br_if $again (i32.eqz (call $log (i32.const 1) (i32.const 0) (i32.const 8192)))))
    (i64.const 0)))""")


def deploy(platform: Platform, name: str, source: dict[str, str], key: str | None = None, **fields: Any) -> None:
    wiring.functions_client(platform.url, key or platform.key).deploy(name, {"source": source} | fields)


def send(platform: Platform, method: str, path: str, key: str | None, body: bytes = b"") -> urllib3.BaseHTTPResponse:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return urllib3.request(method, platform.url + path, headers=headers, body=body, timeout=60, retries=False)


def answering(head: dict[str, Any], body: str = "") -> dict[str, str]:
    return {"code": f"import sys; sys.stdout.write({json.dumps(head) + chr(10) + body!r})", "language": "python"}


def test_it_sees_its_own_program_and_nothing_else(platform: Platform) -> None:
    stranger = platform.tenant("curious")
    deploy(platform, "kept", {"code": "print('a secret of another tenant')", "language": "python"})
    send(platform, "POST", "/v1/functions/kept/invoke", platform.key)
    deploy(platform, "looks", {"code": LOOKS_AROUND, "language": "python"}, stranger)
    text = send(platform, "POST", "/fn/looks/x", stranger).data.decode()
    found = json.loads(text)
    assert stranger not in text
    assert platform.key not in text
    assert str(platform.home) not in text
    assert "authorization" not in found["head"]["headers"]
    assert not [name for name in found["env"] if name.startswith("HZC_")]
    assert found["seen"]["/in"] == ["hzc.py", "main.py"]
    for folder in ("/proc", "/proc/self", "/etc", "/root", "/home", "/dev", "/in/.."):
        assert found["seen"][folder] in ("FileNotFoundError", "PermissionError", "OSError", ["in"]), found["seen"]
    assert found["wrote"] is False
    assert send(platform, "POST", "/v1/functions/kept/invoke", stranger).status == 404
    assert send(platform, "GET", "/v1/functions/kept/logs", stranger).status == 404


@pytest.mark.parametrize("name", ["hzc-call", "hzc-wake", "hzc-stream", "hzc-wait"])
def test_it_does_not_steer_the_host(platform: Platform, name: str) -> None:
    deploy(platform, "steers", answering({"status": 200, "headers": {name: "1", "x-own": "1"}}, "body"))
    began = time.monotonic()
    found = send(platform, "GET", "/fn/steers", platform.key)
    assert (found.status, found.data, found.headers["x-own"], name in found.headers) == (200, b"body", "1", False)
    assert time.monotonic() - began < 50


def test_it_does_not_answer_for_another(platform: Platform) -> None:
    """One connection that several callers share, as behind a proxy: what a function sends is one response."""
    forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
    pool = urllib3.HTTPConnectionPool("127.0.0.1", platform.port, maxsize=1, block=True)
    headers = {"Authorization": f"Bearer {platform.key}"}
    for head in (
        {"status": 204},
        {"status": 304},
        {"status": 200, "headers": {"content-length": "0"}},
        {"status": 200, "headers": {"transfer-encoding": "chunked"}},
        {"status": 200, "headers": {"x": "1\r\ncontent-length: 0\r\n\r\n" + forged}},
    ):
        deploy(platform, "splits", answering(head, forged))
        for method in ("GET", "HEAD", "POST"):
            first = pool.request(method, "/fn/splits", headers=headers, retries=False)
            after = pool.request("GET", "/healthz", retries=False)
            assert (after.status, b"forged" in after.data) == (200, False), (method, head)
            assert first.status in (200, 502)
    assert pool.num_connections == 1


def test_what_it_logs_does_not_fill_the_front(platform: Platform) -> None:
    blob = platform.client().upload_blob(LOGS)
    deploy(platform, "floods", {"module": blob}, abi="reactor", concurrency=4)
    send(platform, "POST", "/v1/functions/floods/invoke", platform.key)
    before = resident(platform)
    with ThreadPoolExecutor(4) as threads:
        flood = [threads.submit(send, platform, "POST", "/v1/functions/floods/invoke", platform.key) for _ in range(4)]
        longest = 0.0
        while not all(each.done() for each in flood):
            began = time.monotonic()
            assert send(platform, "GET", "/healthz", None).status == 200
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.02)
        assert [each.result().status for each in flood] == [200] * 4
    assert longest < 15
    assert resident(platform) - before < 64 << 20


def resident(platform: Platform) -> int:
    """Bytes of memory that the front has."""
    pid = platform.pid("front-1")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))
