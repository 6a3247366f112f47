"""Functions with capabilities as jobs: an agent of a real platform answers their host calls by way of its lease."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hanzo_compute import wiring
from tests.support.live import Platform, until
from tests.support.wallclock.clock import Clock

SECRET = "tok-9f1c-never-shown"
COUNTER = """
import sys
import hzc

value, version = hzc.get("hits")
hits = int(value or b"0") + 1
hzc.put("hits", str(hits), version)
hzc.log(f"hit {hits}")
if len(sys.argv) > 1:
    token = hzc.secret("TOKEN")
    status, headers, body = hzc.http("POST", sys.argv[1], {"Authorization": f"Bearer {token.decode()}"}, b"ping")
    print(status, body.decode(), end=" ")
print(hits)
"""


@dataclass
class Server:
    """Answers on loopback, and remembers."""

    url: str = ""
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.seen.append((self.headers["Authorization"], self.headers["Idempotency-Key"], body))
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"pong")

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://localhost:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("granting") / "home"
    extra = clock.environment | {"HZC_EGRESS_ALLOW": "127.0.0.0/8,::1/128"}
    with Platform(home, extra=extra) as started:
        yield started


def deploy(platform: Platform, name: str, code: str, **spec: object) -> None:
    source = {"code": code, "language": "python"}
    wiring.functions_client(platform.url, platform.key).deploy(name, {"source": source} | spec)


def entry(platform: Platform, name: str, key: str) -> bytes:
    found = platform.hzc("fn", "kv", name, "get", key)
    assert found.returncode == 0, found
    return found.stdout


@pytest.mark.slow
def test_a_schedule_fires_a_function_that_counts_reads_a_secret_and_calls_out(
    granting: Platform, server: Server, clock: Clock, tmp_path: Path
) -> None:
    value = tmp_path / "value"
    value.write_text(SECRET)
    assert granting.hzc("secret", "set", "TOKEN", "--from-file", str(value)).returncode == 0
    deploy(
        granting,
        "counter",
        COUNTER,
        args=[f"{server.url}/x"],
        capabilities={"kv": True, "secrets": ["TOKEN"], "http": [server.url]},
    )
    spec = tmp_path / "job.json"
    spec.write_text(json.dumps({"source": {"function": "counter"}}))
    half = (datetime.now(UTC) + timedelta(minutes=30)).minute  # far from now, and from now in an hour
    made = granting.hzc("schedule", "set", "count", "--cron", f"{half} * * * *", "--missed", "once", str(spec))
    assert made.returncode == 0, made
    clock.set(3600)

    def fired() -> list[str]:
        found = json.loads(granting.hzc("schedule", "runs", "count", "-o", "json").stdout)["items"]
        return [job for run in found if run["status"] == "submitted" for job in run["jobs"]]

    (job, *_) = until(fired, 120, "it fires")
    client = granting.client()
    ended = client.wait(job, timeout_s=200)
    assert ended["state"] == "succeeded", ended
    assert client.output(job) == b"200 pong 1\n"
    assert server.seen == [(f"Bearer {SECRET}", f"{job}/1", b"ping")]
    assert entry(granting, "counter", "hits") == b"1"
    assert ended["outcome"]["usage"]["egress_bytes"] > len(SECRET)
    assert "info: hit 1" in granting.hzc("logs", job).stdout.decode()

    reads = json.loads(granting.hzc("secret", "audit", "TOKEN", "-o", "json").stdout)["items"]
    assert [(each["function"], each["call"]) for each in reads] == [("counter@1", job)]
    file = tmp_path / "r.json"
    assert granting.hzc("receipt", "show", job, "--save", str(file)).returncode == 0
    assert granting.hzc("receipt", "verify", str(file)).returncode == 0
    replayed = granting.hzc("replay", job)
    assert (replayed.returncode, b"capabilities" in replayed.stderr) == (3, True), replayed
    assert granting.hzc("schedule", "rm", "count").returncode == 0
    # Neither the agent nor anybody else has written the secret down.
    for path in granting.home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_jobs_that_run_at_once_count_each_once(granting: Platform) -> None:
    deploy(granting, "tally", COUNTER, capabilities={"kv": True})
    client = granting.client()
    with ThreadPoolExecutor(6) as pool:
        spec = {"source": {"function": "tally"}}
        jobs = [made.job["id"] for made in pool.map(lambda _: client.submit(spec), range(6))]
    ended = [client.wait(job, timeout_s=120) for job in jobs]
    assert {each["state"] for each in ended} == {"succeeded"}, ended
    assert sorted(client.output(job) for job in jobs) == [f"{number}\n".encode() for number in range(1, 7)]
    assert entry(granting, "tally", "hits") == b"6"
    # What was counted as conflicts was counted as no failure of the program.
    assert [each["failures"] for each in ended] == [0] * 6


@pytest.mark.slow
def test_a_call_with_capabilities_that_takes_long_goes_on_as_a_job(granting: Platform, server: Server) -> None:
    server.seen.clear()
    late = COUNTER.replace("print(hits)", "import time; time.sleep(26); print(hits)")
    deploy(
        granting,
        "late",
        late,
        args=[f"{server.url}/late"],
        resources={"timeout_s": 60},
        capabilities={"kv": True, "secrets": ["TOKEN"], "http": [server.url]},
    )
    done = granting.hzc("fn", "invoke", "late", timeout=150)
    assert (done.returncode, done.stdout) == (0, b"200 pong 1\n"), done
    assert entry(granting, "late", "hits") == b"1"  # the call that was given up has left nothing
    first, second = [key for _, key, _ in server.seen]
    assert first == second  # and who was called can tell that it was the same
    assert first.startswith("i-")


@pytest.mark.slow
def test_what_fails_leaves_nothing_and_outputs_are_kept(granting: Platform) -> None:
    code = (
        "import sys, hzc\nhzc.put('k', b'v')\nhzc.output('a.txt', b'x' * 20000)\nhzc.output('b.txt', b'small')\n"
        "sys.exit(int(sys.stdin.read() or 0))\n"
    )
    deploy(granting, "leaves", code, capabilities={"kv": True, "outputs": True})
    client = granting.client()
    source = {"function": "leaves"}
    failed = client.submit({"source": source, "input": {"inline": "3"}}).job["id"]
    assert client.wait(failed, timeout_s=200)["state"] == "failed"
    assert granting.hzc("fn", "kv", "leaves", "get", "k").returncode == 2
    made = granting.hzc("fn", "invoke", "leaves@1", "--data", "0", "--async")
    assert made.returncode == 0, made
    passed = made.stdout.decode().strip()
    outcome = client.wait(passed, timeout_s=200)["outcome"]
    assert [(each["name"], each["size"]) for each in outcome["outputs"]] == [("a.txt", 20000), ("b.txt", 5)]
    assert entry(granting, "leaves", "k") == b"v"


@pytest.mark.slow
def test_in_javascript_and_from_a_package(granting: Platform, tmp_path: Path) -> None:
    script = """import * as hzc from "./hzc.js";
const found = hzc.get("n");
hzc.put("n", String(Number(found ? hzc.decode(found.value) : "0") + 1), found ? found.version : hzc.ABSENT);
std.out.puts("counted");
"""
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "main.py").write_text("import other\nother.count()\n")
    (folder / "other.py").write_text("import hzc\ndef count():\n    hzc.put('n', b'1')\n    print('counted')\n")
    (tmp_path / "script.js").write_text(script)
    for name, path in (("script", tmp_path / "script.js"), ("packed", folder)):
        made = granting.hzc("fn", "deploy", name, str(path), "--kv")
        assert made.returncode == 0, made
        ran = granting.hzc("run", "--function", name, timeout=120)
        assert (ran.returncode, ran.stdout.strip()) == (0, b"counted"), ran
        assert entry(granting, name, "n") == b"1"


@pytest.mark.slow
def test_an_agent_that_is_killed_leaves_nothing_and_the_next_attempt_counts_once(granting: Platform) -> None:
    """kill -9 between what was read and the outcome."""
    code = (
        "import time, hzc\nvalue, version = hzc.get('n')\nhzc.put('n', str(int(value or b'0') + 1), version)\n"
        "print('put', flush=True)\ntime.sleep(10)\nprint('done')\n"
    )
    deploy(granting, "killed", code, capabilities={"kv": True})
    client = granting.client()
    job = client.submit({"source": {"function": "killed"}}).job["id"]
    until(lambda: client.get(job)["state"] == "running", 120, "it runs")
    time.sleep(2)
    pid = granting.pid("agent-1")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert granting.hzc("fn", "kv", "killed", "get", "n").returncode == 2
    ended = client.wait(job, timeout_s=120)
    assert (ended["state"], ended["attempt"] > 1, ended["failures"]) == ("succeeded", True, 0), ended
    assert entry(granting, "killed", "n") == b"1"
