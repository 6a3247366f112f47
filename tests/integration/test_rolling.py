"""`hzc restart`: every process of a platform is replaced under load, and nobody who uses it notices."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3

from hanzo_compute.adapters.http import sse
from tests.support import invariants
from tests.support.live import ECHO, Platform, compiled, until

pytestmark = [pytest.mark.slow]

FRONTS, AGENTS = 3, 2
TALKER = "import time\nfor n in range(5000): print(n, flush=True); time.sleep(0.05)\n"


@dataclass
class Clients:
    """Threads that use the platform over kept-alive connections, with no retries: what fails is counted."""

    platform: Platform
    module: str
    answers: int = 0
    failed: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        tasks: list[Callable[[urllib3.PoolManager], None]] = [self.submit, self.submit, self.read, self.poll, self.rest]
        for number, task in enumerate(tasks):
            self.threads.append(threading.Thread(target=self.run, args=(task,), name=f"client-{number}", daemon=True))
            self.threads[-1].start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()

    def run(self, task: Callable[[urllib3.PoolManager], None]) -> None:
        pool = urllib3.PoolManager(maxsize=4)
        while not self.stopping.is_set():
            try:
                task(pool)
            except Exception as error:  # whatever it is, it counts
                self.failed.append(f"{time.strftime('%X')} {task.__name__}: {error!r}")
        pool.clear()

    def call(self, pool: urllib3.PoolManager, method: str, path: str, body: Any = None, timeout: float = 30) -> Any:
        headers = {"Authorization": f"Bearer {self.platform.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        answer = pool.request(
            method, self.platform.url + path, headers=headers, body=data, retries=False, timeout=timeout
        )
        if not 200 <= answer.status < 300:
            self.failed.append(f"{time.strftime('%X')} {method} {path}: {answer.status} {answer.data[:200]!r}")
            return None
        self.answers += 1
        return answer.json()

    def submit(self, pool: urllib3.PoolManager) -> None:
        spec = {"source": {"module": self.module}, "args": [str(time.monotonic_ns())]}
        made = self.call(pool, "POST", "/v1/jobs", spec)
        if made:
            self.jobs.append(made["id"])
        self.stopping.wait(0.15)

    def read(self, pool: urllib3.PoolManager) -> None:
        self.call(pool, "GET", "/v1/jobs?limit=5")
        self.stopping.wait(0.01)

    def poll(self, pool: urllib3.PoolManager) -> None:
        """Long polls, each until the job has ended."""
        if not self.jobs:
            return
        job = self.jobs[-1]
        state = "queued"
        while state not in ("succeeded", None):
            found = self.call(pool, "GET", f"/v1/jobs/{job}?wait_s=20&seen_state={state}", timeout=50)
            state = found and found["state"]

    def rest(self, pool: urllib3.PoolManager) -> None:
        """A connection that is used seldom, but within the grace that a front gives."""
        self.call(pool, "GET", "/healthz")
        self.stopping.wait(1.5)


class Follower(threading.Thread):
    """Follows one job's log by server-sent events at the HTTP level, resuming by Last-Event-ID."""

    def __init__(self, platform: Platform, job: str) -> None:
        super().__init__(name="follower", daemon=True)
        self.platform, self.job = platform, job
        self.text = ""
        self.connections = 0
        self.failed: list[str] = []
        self.ended = False

    def run(self) -> None:
        pool = urllib3.PoolManager()
        last = ""
        while not self.ended and not self.failed:
            headers = {"Authorization": f"Bearer {self.platform.key}", "Accept": "text/event-stream"}
            if last:
                headers["Last-Event-ID"] = last
            try:
                path = f"{self.platform.url}/v1/jobs/{self.job}/logs?follow=1"
                answer = pool.request("GET", path, headers=headers, retries=False, timeout=60, preload_content=False)
                self.connections += 1
                if answer.status != 200:
                    self.failed.append(f"{answer.status} {answer.data[:200]!r}")
                for event in sse.events(answer.stream()):
                    if event.event == "log":
                        self.text += json.loads(event.data)["text"]
                    last = event.id or last
                    self.ended = self.ended or event.event == "end"
                answer.release_conn()
            except Exception as error:
                self.failed.append(repr(error))
        pool.clear()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Platform(tmp_path / "home", fronts=FRONTS, agents=AGENTS) as started:
        yield started


def state(platform: Platform) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((platform.home / "run" / "platform.json").read_text())
    return found


@pytest.mark.timeout(900)
def test_two_rolling_restarts_under_load_fail_no_request(platform: Platform) -> None:
    client = platform.client()
    module = client.upload_blob(compiled(ECHO))
    spec = {"source": {"code": TALKER, "language": "python"}, "resources": {"timeout_s": 300}}
    talker = client.submit(spec).job["id"]
    clients, follower = Clients(platform, module), Follower(platform, talker)
    follower.start()
    clients.start()
    until(lambda: len(clients.jobs) > 5, 120, "jobs are accepted")
    for turn in range(2):
        before = state(platform)["processes"]
        done = platform.hzc("restart", timeout=300)
        assert done.returncode == 0, done
        after = state(platform)["processes"]
        assert [each["name"] for each in after] == [each["name"] for each in before]
        assert not {each["pid"] for each in after} & {each["pid"] for each in before}
        assert [each["restarts"] for each in after] == [0] * (2 + FRONTS + AGENTS)
        if turn == 0:  # it was given back by the agents that ran it, and goes on
            client.cancel(talker)
            follower.join(120)
            assert (follower.failed, follower.ended) == ([], True)
            assert follower.connections > 1
    clients.stop()
    assert clients.failed == []
    assert clients.answers > 200

    until(lambda: not invariants.unfinished(client), 120, "all jobs end")
    assert invariants.wrong_jobs(platform.home, [*clients.jobs, talker]) == []
    for job in clients.jobs:
        events = [event["type"] for event in client.events(job)]
        assert events[-1] == "succeeded", events
        assert "lapsed" not in events
    assert "lapsed" not in [event["type"] for event in client.events(talker)]
    until(lambda: not invariants.wrong_at_rest(platform.home), 120, "nothing is left over")
    assert platform.stop() == 0
    until(lambda: not platform.processes(), 120, "no process is left")
