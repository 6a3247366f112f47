"""A host with several fronts and several agents is one platform."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from tests.support import invariants
from tests.support.live import Platform, compiled, until
from tests.support.rounds import SLEEPER

FRONTS, AGENTS, SLOTS = 3, 3, 2


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("many") / "home"
    with Platform(home, fronts=FRONTS, agents=AGENTS, slots=SLOTS) as started:
        yield started


class Connection:
    """One kept-alive connection, and the front that serves it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.http = HTTPConnection("127.0.0.1", platform.port, timeout=120)
        self.http.connect()
        self.call("GET", "/healthz")
        self.front = server_of(platform, self.http.sock)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.platform.key}", "Content-Type": "application/json"}
        self.http.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        answer = self.http.getresponse()
        data = answer.read()
        assert 200 <= answer.status < 300, (answer.status, data)
        return json.loads(data)


def server_of(platform: Platform, sock: socket.socket) -> str:
    """The name of the front that holds the other end of a connection."""
    ours, theirs = sock.getsockname()[1], sock.getpeername()[1]
    wanted = f":{theirs:04X}", f":{ours:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted[0]) and fields[2].endswith(wanted[1]):
            for number in range(FRONTS):
                name = f"front-{number + 1}"
                if holds(platform.pid(name), f"socket:[{fields[9]}]"):
                    return name
    raise AssertionError("no front holds this connection")


def holds(pid: int | None, target: str) -> bool:
    for entry in list(Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # closed since it was listed
            if str(entry.readlink()) == target:
                return True
    return False


@contextmanager
def connections(platform: Platform) -> Iterator[dict[str, Connection]]:
    """A connection to each front: which one accepts is up to the kernel, so as many are made as it takes."""
    made: list[Connection] = []

    def all_fronts() -> dict[str, Connection]:
        made.append(Connection(platform))
        found = {each.front: each for each in made}
        return found if len(found) == FRONTS else {}

    try:
        yield until(all_fronts, 120, "every front accepts")
    finally:
        for each in made:
            each.http.close()


def woken(asked: Connection, waits: Connection, module: str) -> bool:
    """Whether each long poll for a job that was submitted elsewhere was ended by a change, and none by its time."""
    job = asked.call("POST", "/v1/jobs", {"source": {"module": module}})["id"]
    state, all_early = "queued", True
    while state != "succeeded":
        began = time.monotonic()
        found = waits.call("GET", f"/v1/jobs/{job}?wait_s=20&seen_state={state}")["state"]
        early = time.monotonic() - began < 15
        assert found != state or not early
        state, all_early = found, all_early and early
    return all_early


def test_a_wake_reaches_whoever_waits_on_another_front(platform: Platform) -> None:
    module = platform.client().upload_blob(compiled(SLEEPER % 3))
    with connections(platform) as fronts:
        for asked, waits in (("front-1", "front-2"), ("front-2", "front-3"), ("front-3", "front-1")):
            # On a busy machine a job itself may take longer than a long poll.
            assert any(woken(fronts[asked], fronts[waits], module) for _ in range(5)), (asked, waits)


def test_leases_are_spread_over_agents(platform: Platform) -> None:
    client = platform.client()
    module = client.upload_blob(compiled(SLEEPER % 9))
    jobs = [client.submit({"source": {"module": module}}).job["id"] for _ in range(2 * AGENTS * SLOTS)]
    for job in jobs:
        assert client.wait(job, timeout_s=200)["state"] == "succeeded"
    agents = Counter(
        event["data"]["agent"] for job in jobs for event in client.events(job) if event["type"] == "running"
    )
    assert set(agents) == {f"local-{number + 1}" for number in range(AGENTS)}
    assert sum(agents.values()) == len(jobs)


def test_a_killed_front_does_not_hurt_the_others(platform: Platform) -> None:
    module = platform.client().upload_blob(compiled(SLEEPER % 1))
    pid = platform.pid("front-1")
    assert pid is not None
    jobs: list[str] = []
    failed: list[BaseException] = []

    def go_on(connection: Connection) -> None:
        """Submit over the same connection all the while."""
        try:
            for _ in range(15):
                jobs.append(connection.call("POST", "/v1/jobs", {"source": {"module": module}})["id"])
                time.sleep(0.05)
        except BaseException as error:
            failed.append(error)

    with connections(platform) as fronts:
        survivors = [each for name, each in fronts.items() if name != "front-1"]
        threads = [threading.Thread(target=go_on, args=(each,)) for each in survivors]
        for thread in threads:
            thread.start()
        os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert failed == []
        with pytest.raises((OSError, HTTPException)):
            fronts["front-1"].call("GET", "/healthz")
    client = wiring.jobs_client(platform.url, platform.key)
    for job in jobs:
        assert client.wait(job, timeout_s=200)["state"] == "succeeded"
    until(lambda: platform.pid("front-1") not in (None, pid), 120, "the front is started again")
    with connections(platform) as fronts:
        fronts["front-1"].call("GET", "/v1/jobs")


def test_a_killed_agent_costs_only_its_own_attempts(platform: Platform) -> None:
    client = platform.client()
    module = client.upload_blob(compiled(SLEEPER % 40))  # for long enough to be seen all at once
    jobs = [client.submit({"source": {"module": module}}).job["id"] for _ in range(AGENTS * SLOTS)]

    until(lambda: all(client.get(job)["state"] == "running" for job in jobs), 120, "all run at once")
    pid = platform.pid("agent-2")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    attempts = {job: client.wait(job, timeout_s=200)["attempt"] for job in jobs}
    first = {job: next(e for e in client.events(job) if e["type"] == "running")["data"]["agent"] for job in jobs}
    assert {first[job] for job in jobs} == {f"local-{number + 1}" for number in range(AGENTS)}
    for job in jobs:
        assert attempts[job] == (2 if first[job] == "local-2" else 1), (job, attempts, first)
    until(lambda: not invariants.wrong_at_rest(platform.home), 120, f"{invariants.wrong_at_rest(platform.home)}")
