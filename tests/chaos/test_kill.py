"""kill -9 of any process, under load: what got a 2xx ends exactly once, and nothing is left behind."""

from __future__ import annotations

import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from os import kill
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from hanzo_compute.errors import ComputeError
from hanzo_compute_host.running import is_ready
from tests.support.live import ECHO, Platform, compiled, pages, until

pytestmark = [pytest.mark.kill, pytest.mark.slow]

KILLS = 20
TARGETS = ("writer", "front-1", "pump", "agent-1", "worker", "supervisor")
TERMINAL = {"succeeded", "failed", "cancelled", "timed_out", "expired", "dead"}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Platform(tmp_path / "home") as started:
        yield started


class Load(threading.Thread):
    """Submits small jobs, each with its key, and repeats a call until it got a 2xx."""

    def __init__(self, platform: Platform, name: str, module: str) -> None:
        super().__init__(name=name, daemon=True)
        self.client = wiring.jobs_client(platform.url, platform.key)
        self.module = module
        self.accepted: dict[str, str] = {}
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            key = f"{self.name}-{number}"
            spec = {"source": {"module": self.module}, "labels": {"load": self.name}, "args": [key]}
            while key not in self.accepted:
                try:
                    self.accepted[key] = self.client.submit(spec, idempotency_key=key).job["id"]
                except ComputeError as error:
                    if not error.retryable:
                        raise
                    time.sleep(0.1)
            self.stopping.wait(0.15)


def strike(platform: Platform, target: str) -> bool:
    """Kill one process; False when there is none of that name just now."""
    if target == "supervisor":
        platform.kill_supervisor()
        platform.start()
        return True
    if target == "worker":
        workers = platform.workers()
        pid = workers[0] if workers else None
    else:
        pid = platform.pid(target)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        kill(pid, signal.SIGKILL)
        return True
    return False


@pytest.mark.timeout(400)
def test_every_accepted_job_ends_exactly_once(platform: Platform) -> None:
    chance = random.Random(20)
    module = platform.client().upload_blob(compiled(ECHO))
    load = [Load(platform, f"load{number}", module) for number in range(2)]
    for each in load:
        each.start()
    killed: list[str] = []
    while len(killed) < KILLS:
        target = TARGETS[len(killed) % len(TARGETS)] if len(killed) < len(TARGETS) else chance.choice(TARGETS)
        threading.Event().wait(chance.uniform(0.2, 1.2))  # the moment of the kill is what varies
        if strike(platform, target):
            killed.append(target)
        until(lambda: is_ready(platform.url, 1.0), 60, f"it answers again after {killed}")
    for each in load:
        each.stopping.set()
    for each in load:
        each.join(60)
        assert not each.is_alive()

    client = platform.client()
    accepted = {job for each in load for job in each.accepted.values()}
    assert len(accepted) == sum(len(each.accepted) for each in load)

    def unfinished() -> list[dict[str, Any]]:
        return [job for job in pages(client) if job["state"] not in TERMINAL]

    until(lambda: not unfinished(), 120, f"all {len(accepted)} jobs end")
    listed = {str(job["id"]): job for job in pages(client)}
    assert set(listed) == accepted
    assert set(killed) == set(TARGETS)
    for job in listed.values():
        events = client.events(str(job["id"]))
        ends = [event["type"] for event in events if event["type"] in TERMINAL]
        assert ends == [job["state"]], events
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert job["state"] == "succeeded", job
        assert client.output(str(job["id"])) == b"done\n"
    for each in load:  # the keys still give the same jobs
        key, job_id = next(iter(each.accepted.items()))
        spec = {"source": {"module": module}, "labels": {"load": each.name}, "args": [key]}
        assert client.submit(spec, idempotency_key=key).job["id"] == job_id
    until(lambda: not leftovers(platform.home), 60, f"queues and outbox are empty: {leftovers(platform.home)}")
    assert platform.stop() == 0
    until(lambda: not platform.processes(), 10, "no process is left")


def leftovers(home: Path) -> list[tuple[Any, ...]]:
    """Messages, outbox rows and unclosed jobs in the database."""
    with sqlite3.connect(f"file:{home}/db/hanzo.sqlite3?mode=ro", uri=True) as db:
        found = db.execute("SELECT 'message', queue, body FROM messages").fetchall()
        found += db.execute("SELECT 'outbox', pk, body FROM records WHERE pk LIKE 'OUTBOX#%'").fetchall()
        found += db.execute(
            "SELECT 'due', pk, body FROM records WHERE pk LIKE 'JOB#%' AND sk = 'META' AND body NOT LIKE '%closed%'"
        ).fetchall()
    db.close()
    return found
