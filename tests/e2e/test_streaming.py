"""Calls of functions whose output comes while they run, on a real platform.

The functions here go on when the test lets them: they look for a secret that it sets. So what has arrived before that
has arrived before the call has ended, however slow the machine is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from hanzo_compute import wiring
from hanzo_compute.adapters.http import sse
from hanzo_compute.model.bounds import RESPONSE_MAX
from tests.support.live import HZC, Platform, children, until
from tests.support.wasm import wat

WAITS = """
import sys, time
import hzc

def gate(name):
    while True:
        try:
            return hzc.secret(name)
        except hzc.NotFound:
            time.sleep(0.05)

"""
SPEAKS = WAITS + "print('first', flush=True)\nprint('noted', file=sys.stderr)\ngate(%r)\nprint('second')\n%s"
CARELESS = wat("""(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 100)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 5242880))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))""")


class Stream:
    """One call, heard as it comes."""

    def __init__(self, platform: Platform, name: str) -> None:
        headers = {"Authorization": f"Bearer {platform.key}", "Accept": "text/event-stream"}
        url = f"{platform.url}/v1/functions/{name}/invoke"
        self.answer = urllib3.request("POST", url, headers=headers, timeout=60, retries=False, preload_content=False)
        self._events = sse.events(iter(lambda: self.answer.read1(65536), b""))

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for event in self._events:
            yield event.event, json.loads(event.data)

    def cut(self) -> None:
        """Go away."""
        self.answer.close()

    def rest(self) -> tuple[bytes, dict[str, Any]]:
        """Standard output that is still to come, and the one end."""
        output, ends = b"", []
        for kind, told in self:
            assert not ends, "something comes after the end"
            if kind == "end":
                ends.append(told)
            elif "name" not in told:
                output += base64.b64decode(told["base64"]) if "base64" in told else told["text"].encode()
        assert len(ends) == 1
        return output, ends[0]


Streams = Callable[[str], Stream]


@pytest.fixture
def stream_of(platform: Platform) -> Iterator[Streams]:
    made: list[Stream] = []

    def begin(name: str) -> Stream:
        made.append(Stream(platform, name))
        return made[-1]

    yield begin
    for each in made:
        each.cut()


def deploy(platform: Platform, name: str, program: bytes | str, **fields: Any) -> None:
    source: dict[str, str] = {"code": program, "language": "python"} if isinstance(program, str) else {}
    if isinstance(program, bytes):
        source = {"module": platform.client().upload_blob(program)}
    wiring.functions_client(platform.url, platform.key).deploy(name, {"source": source} | fields)


def gated(platform: Platform, name: str, then: str = "", **fields: Any) -> str:
    """Deploy what says `first`, waits for the secret that is returned, and says `second`."""
    secret = f"go-{name}"
    deploy(platform, name, SPEAKS % (secret, then), capabilities={"secrets": [secret]}, **fields)
    return secret


def go(platform: Platform, secret: str) -> None:
    wiring.secrets_client(platform.url, platform.key).put(secret, b"1")


def plainly(platform: Platform, name: str) -> urllib3.BaseHTTPResponse:
    headers = {"Authorization": f"Bearer {platform.key}"}
    return urllib3.request(
        "POST", f"{platform.url}/v1/functions/{name}/invoke", headers=headers, timeout=60, retries=False
    )


def log_of(platform: Platform, name: str) -> list[dict[str, Any]]:
    return wiring.functions_client(platform.url, platform.key).logs(name)


def test_what_is_written_arrives_before_the_call_ends(platform: Platform, stream_of: Streams) -> None:
    secret = gated(platform, "speaks")
    stream = stream_of("speaks")
    events = iter(stream)
    assert next(events) == ("output", {"text": "first\n"})
    assert (stream.answer.status, stream.answer.headers["content-type"]) == (200, "text/event-stream")
    assert stream.answer.headers["transfer-encoding"] == "chunked"
    go(platform, secret)
    output, end = stream.rest()
    assert output == b"second\n"
    call = stream.answer.headers["x-invocation"]
    assert (end["status"], end["committed"], end["function"], end["invocation"]) == (200, True, "speaks@1", call)
    assert end["usage"]["wall_us"] > 0
    assert "error" not in end
    # As for the unstreamed call: its log, and a receipt of all that was sent.
    until(lambda: any("noted" in each["text"] for each in log_of(platform, "speaks")), 120, "its log")
    until(lambda: platform.hzc("receipt", "show", call).returncode == 0, 120, "its receipt")
    statement = json.loads(platform.hzc("receipt", "show", call, "-o", "json").stdout)["statement"]
    assert hashlib.sha256(b"first\nsecond\n").hexdigest() in json.dumps(statement)


def test_a_call_that_fails_after_it_has_spoken_says_so_at_its_end(platform: Platform, stream_of: Streams) -> None:
    secret = gated(platform, "breaks", "raise ValueError('no good')")
    stream = stream_of("breaks")
    assert next(iter(stream)) == ("output", {"text": "first\n"})
    go(platform, secret)
    output, end = stream.rest()
    assert (output, stream.answer.status) == (b"second\n", 200)
    assert (end["status"], end["committed"], end["error"]["code"]) == (502, False, "function_failed")
    assert "ValueError: no good" in end["error"]["detail"]
    assert end["error"]["request_id"] == stream.answer.headers["x-request-id"]


def test_a_call_that_fails_before_is_answered_as_ever(platform: Platform, stream_of: Streams) -> None:
    deploy(platform, "fails", "raise SystemExit(3)")
    answer = stream_of("fails").answer
    assert (answer.status, answer.headers["content-type"]) == (502, "application/problem+json")
    assert json.loads(answer.read())["exit_code"] == 3
    assert stream_of("nowhere").answer.status == 404


def test_its_bounds_are_those_of_every_call(platform: Platform, stream_of: Streams) -> None:
    deploy(platform, "careless", CARELESS)
    output, end = stream_of("careless").rest()
    assert output == bytes(RESPONSE_MAX)
    assert (end["status"], end["error"]["category"]) == (502, "exit")
    deploy(platform, "whole", "import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 16384)")
    output, end = stream_of("whole").rest()
    assert (len(output), output == bytes(range(256)) * 16384, end["status"]) == (RESPONSE_MAX, True, 200)
    deploy(platform, "spins", "print('x', flush=True)\nwhile True: pass", resources={"timeout_s": 5})
    output, end = stream_of("spins").rest()
    assert (output, end["status"], end["error"]["code"]) == (b"x\n", 504, "function_timed_out")


def test_one_at_a_time_while_it_streams_and_who_goes_away_ends_nothing(platform: Platform, stream_of: Streams) -> None:
    secret = gated(platform, "alone", "print('to the end', file=sys.stderr)", concurrency=1)
    stream = stream_of("alone")
    assert next(iter(stream)) == ("output", {"text": "first\n"})
    assert plainly(platform, "alone").status == 429
    stream.cut()
    assert plainly(platform, "alone").status == 429
    go(platform, secret)
    until(lambda: any("to the end" in each["text"] for each in log_of(platform, "alone")), 120, "it ran to its end")
    assert plainly(platform, "alone").data == b"first\nsecond\n"


def test_a_worker_that_is_killed_gives_one_honest_end(platform: Platform, stream_of: Streams) -> None:
    secret = gated(platform, "dies")
    stream = stream_of("dies")
    assert next(iter(stream)) == ("output", {"text": "first\n"})
    front = platform.pid("front-1")
    assert front is not None
    for pid in children(front):
        if b"hanzo_compute.adapters.sandbox.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    output, end = stream.rest()
    assert output == b"", "it was run again, into the same stream"
    assert (end["status"], end["committed"], end["error"]["code"]) == (503, False, "unavailable")
    assert "SIGKILL" in end["error"]["detail"]
    go(platform, secret)
    assert stream_of("dies").rest()[0] == b"first\nsecond\n"


def test_named_outputs_come_too_in_order(platform: Platform, stream_of: Streams) -> None:
    code = """
import sys, hzc
for n in range(3):
    print(n, flush=True)
    hzc.output("rows", f"row {n}".encode())
"""
    deploy(platform, "names", code, capabilities={"outputs": True})
    *events, (kind, end) = list(stream_of("names"))
    assert kind == "end"
    assert [told for _, told in events] == [
        {"text": "0\n"},
        {"name": "rows", "text": "row 0"},
        {"text": "1\n"},
        {"name": "rows", "text": "row 1"},
        {"text": "2\n"},
        {"name": "rows", "text": "row 2"},
    ]
    assert end["outputs"]["rows"].startswith("b1-")


def test_with_entries_all_of_it_comes_when_they_are_durable(platform: Platform, stream_of: Streams) -> None:
    code = """
import hzc
value, version = hzc.get("n")
print(int(value or b"0") + 1, flush=True)
hzc.put("n", str(int(value or b"0") + 1), version)
"""
    deploy(platform, "counts", code, capabilities={"kv": True})
    for number in (1, 2):
        output, end = stream_of("counts").rest()
        assert (output, end["status"], end["committed"]) == (b"%d\n" % number, 200, True)


def test_by_cli(platform: Platform) -> None:
    secret = gated(platform, "shown", "raise SystemExit(3)")
    command = [*HZC, "fn", "invoke", "shown", "--stream"]
    with subprocess.Popen(
        command, env=platform.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"first\n"
        assert process.poll() is None
        go(platform, secret)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"second\n")
    assert b"exit code 3" in err
    lines = platform.hzc("fn", "invoke", "shown", "--stream", "-o", "json").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [each["event"] for each in told][-1] == "end"
    assert told[-1]["error"]["exit_code"] == 3


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_who_does_not_ask_gets_bytes(platform: Platform, accept: str) -> None:
    deploy(platform, "plain", "print('out')")
    headers = {"Authorization": f"Bearer {platform.key}", "Accept": accept}
    found = urllib3.request("POST", f"{platform.url}/v1/functions/plain/invoke", headers=headers, timeout=60)
    assert (found.data, found.headers["content-type"]) == (b"out\n", "application/octet-stream")
