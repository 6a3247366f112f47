"""A whole platform as processes: started, used, killed in parts and as a whole, stopped."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.errors import Conflict, PermissionDenied
from hanzo_compute_host import running
from hanzo_compute_host.running import is_ready, own, stop
from hanzo_compute_host.supervisor import Supervisor

PROGRAM = """
import sys
from pathlib import Path
from hanzo_compute.errors import ComputeError
from hanzo_compute_host import supervisor
supervisor.END_S = 30.0  # none is killed only because the machine is busy
try:
    fronts, agents = (int(each) for each in sys.argv[3:])
    supervisor.Supervisor(Path(sys.argv[1]), int(sys.argv[2]), fronts=fronts, agents=agents, slots=1).run()
except ComputeError as error:
    sys.exit(f"{error.message} ({error.hint})")
"""


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What ``condition`` gives once that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


class Platform:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[str] | None = None

    def start(
        self, port: int = 0, fronts: int = 1, agents: int = 1, below: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """``below``: a command that becomes the one that follows it."""
        self.process = subprocess.Popen(
            [*below, sys.executable, "-c", PROGRAM, str(self.home), str(port), str(fronts), str(agents)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"HZC_CACHE": str(self.home / "cache")},
        )
        return self.process

    def ready(self) -> str:
        def url() -> str | None:
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()[0]
            state = self.state()
            return state["url"] if state and state["pid"] == self.process.pid else None

        found: str = until(url)
        assert until(lambda: is_ready(found, 1.0))
        return found

    def state(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.home / "run" / "platform.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def pids(self) -> dict[str, int | None]:
        state = self.state()
        assert state is not None
        return {each["name"]: each["pid"] for each in state["processes"]}

    def credentials(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.home / "credentials.json").read_text())
        return found

    def call(self, method: str, path: str, key: str | None = None, body: Any = None) -> tuple[int, Any]:
        stored = self.credentials()
        request = urllib.request.Request(
            stored["url"] + path, method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("Authorization", f"Bearer {key or stored['key']}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def submit(self) -> tuple[int, Any]:
        """Upload the module, as a client does, and submit a job for it."""
        digest = hashlib.sha256(MODULE).hexdigest()
        status, blob = self.call("POST", "/v1/blobs", body={"sha256": digest, "size": len(MODULE)})
        assert status == 200
        if blob["upload"]:
            request = urllib.request.Request(blob["upload"]["url"], method="PUT", data=MODULE)
            with urllib.request.urlopen(request, timeout=30) as response:
                assert response.status == 200
        return self.call("POST", "/v1/jobs", body=SPEC)

    def end(self) -> str:
        """Stop it, and return what it printed."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.communicate(timeout=120)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def left_behind(home: Path) -> list[str]:
    """Processes of the platform of ``home``, the workers of its agents among them."""
    mark = f"HZC_HOME={home}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    made = Platform(tmp_path / "home")
    yield made
    if made.process is not None:
        made.end()


MODULE = b"\0asm\x01\0\0\0"
"""The smallest module: it has nothing to run, so its job fails at once and costs the tests nothing."""
SPEC = {"runtime": "wasm", "source": {"module": f"b1-{hashlib.sha256(MODULE).hexdigest()}"}}


def test_a_platform_starts_serves_and_stops(platform: Platform) -> None:
    process = platform.start(fronts=2)
    url = platform.ready()
    state = platform.state()
    assert state is not None
    assert state["pid"] == process.pid == running.owner(platform.home)
    assert set(platform.pids()) == {"writer", "front-1", "front-2", "pump", "agent-1"}
    for name in ("credentials.json", "keys/runner.key", "run/platform.json"):
        assert (platform.home / name).stat().st_mode & 0o777 == 0o600

    for path in platform.home.rglob("*"):  # whoever else uses this machine reads nothing
        with suppress(FileNotFoundError):  # it may go as it runs
            assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path
    assert platform.credentials()["url"] == url
    assert platform.call("GET", "/v1/jobs") == (200, {"items": [], "next_cursor": None})
    assert platform.call("GET", "/v1/jobs", key="hzk_nobody")[0] == 401
    runner = (platform.home / "keys" / "runner.key").read_text().strip()
    assert platform.call("GET", "/v1/jobs", key=runner)[0] == 403

    pids = [pid for pid in platform.pids().values() if pid]
    assert left_behind(platform.home)
    assert stop(platform.home, 60)
    assert process.wait(60) == 0
    assert not [pid for pid in pids if alive(pid)]
    assert left_behind(platform.home) == []
    assert platform.state() is None
    assert not stop(platform.home, 1)
    printed = platform.end()
    assert platform.credentials()["key"] not in printed  # what is not a terminal is kept
    assert "stopped" in printed
    assert "killing" not in printed


def test_its_processes_may_open_as_many_files_as_the_hard_limit_says(platform: Platform) -> None:
    platform.start(below=("sh", "-c", 'ulimit -n 3000 && ulimit -S -n 300 && exec "$@"', "sh"))
    platform.ready()
    for pid in platform.pids().values():
        assert pid is not None
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (3_000, 3_000)


def test_the_owner_keeps_the_key_over_restarts(platform: Platform) -> None:
    platform.start()
    platform.ready()
    key = platform.credentials()["key"]
    assert platform.submit()[0] == 201
    platform.end()
    platform.start()
    platform.ready()
    assert platform.credentials()["key"] == key
    assert len(platform.call("GET", "/v1/jobs")[1]["items"]) == 1
    assert "shown once" not in platform.end()
    # Whoever has the state folder owns the platform: a lost key is replaced.
    (platform.home / "credentials.json").unlink()
    platform.start()
    platform.ready()
    assert platform.credentials()["key"] != key
    assert platform.call("GET", "/v1/jobs")[0] == 200


def test_only_one_platform_in_a_folder_and_on_a_port(platform: Platform, tmp_path: Path) -> None:
    process = platform.start()
    url = platform.ready()
    with pytest.raises(Conflict, match=f"already runs .*{process.pid}"):
        Supervisor(platform.home, 0).run()
    with pytest.raises(Conflict, match="cannot listen"):
        Supervisor(tmp_path / "other", int(url.rpartition(":")[2])).run()
    assert platform.call("GET", "/v1/jobs")[0] == 200


@pytest.mark.kill
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionDenied, match="others may write"):
        Supervisor(tmp_path, 0).run()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_can_read_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    own(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_what_dies_is_started_again(platform: Platform) -> None:
    platform.start()
    platform.ready()
    assert platform.submit()[0] == 201
    before = platform.pids()
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def all_new() -> bool:
        after = platform.pids()
        return all(after[name] not in (None, before[name]) for name in before)

    until(all_new)
    assert until(lambda: is_ready(platform.credentials()["url"], 1.0))
    status, page = platform.call("GET", "/v1/jobs")
    assert (status, len(page["items"])) == (200, 1)
    state = platform.state()
    assert state is not None
    assert [each["restarts"] for each in state["processes"]] == [1] * 4
    assert "ended (signal SIGKILL), it starts again in 1 s" in platform.end()


@pytest.mark.kill
def test_a_killed_supervisor_leaves_nobody_behind(platform: Platform) -> None:
    process = platform.start()
    platform.ready()
    assert platform.submit()[0] == 201
    pids = [pid for pid in platform.pids().values() if pid]
    process.kill()
    process.communicate()
    until(lambda: not [pid for pid in pids if alive(pid)] and not left_behind(platform.home))
    assert running.owner(platform.home) is None
    platform.start()
    platform.ready()
    assert len(platform.call("GET", "/v1/jobs")[1]["items"]) == 1


def test_a_second_signal_ends_it_at_once(platform: Platform) -> None:
    process = platform.start()
    platform.ready()
    pids = [pid for pid in platform.pids().values() if pid]
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not [pid for pid in pids if alive(pid)]


def test_a_waiting_client_is_answered_at_the_stop(platform: Platform) -> None:
    process = platform.start(agents=0)
    url = platform.ready()
    job = platform.submit()[1]
    asked = f"/v1/jobs/{job['id']}/logs?follow=1&wait_s=20"
    waiter = subprocess.Popen(
        [sys.executable, "-c", WAITER, url.partition("//")[2], asked, platform.credentials()["key"]],
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: waiter.stdout is not None and waiter.stdout.readline() == "asking\n")
    time.sleep(0.5)  # for the front to hear it
    begin = time.monotonic()
    process.terminate()
    answer = waiter.communicate(timeout=60)[0]
    assert json.loads(answer)["status"] in (200, 503)
    assert process.wait(60) == 0
    assert time.monotonic() - begin < 40


WAITER = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
connection.request("GET", sys.argv[2], headers={"Authorization": "Bearer " + sys.argv[3]})
print("asking", flush=True)
print(json.dumps({"status": connection.getresponse().status}))
"""


def test_logs_stay_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hanzo_compute_host import children

    monkeypatch.setattr(children, "LOG_MAX", 100)
    child = children.Child(children.Spec("x", "this", (), {}, signal.SIGKILL), tmp_path)
    child.log.write_bytes(b"a" * 101)
    child.rotate()
    assert child.log.stat().st_size == 0
    assert (tmp_path / "x.log.1").read_bytes() == b"a" * 101


def test_restarts_get_slower_and_a_steady_process_starts_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hanzo_compute_host import children

    child = children.Child(children.Spec("x", "this", (), {}, signal.SIGKILL), tmp_path)
    now = 1_000.0
    monkeypatch.setattr(children.time, "monotonic", lambda: now)
    child._started = now
    assert [child.plan_restart() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    now += children.STEADY_S
    assert child.plan_restart() == 1
