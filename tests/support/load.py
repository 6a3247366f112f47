"""Clients that submit small jobs while a machine is hostile, and the account of what became of those jobs."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Final

from hanzo_compute import wiring
from hanzo_compute.adapters.http import JobsClient
from hanzo_compute.errors import ComputeError
from tests.support.live import ECHO, Platform, compiled, pages, until

TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled", "timed_out", "expired", "dead"})


class Load(threading.Thread):
    """Submits a job every ``pause_s``, each with its key, and repeats a call until it got a 2xx."""

    def __init__(self, platform: Platform, name: str, *, pause_s: float = 0.1, module: str | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self.client = wiring.jobs_client(platform.url, platform.key)
        self.module = module or self.client.upload_blob(compiled(ECHO))
        self.pause_s = pause_s
        self.accepted: dict[str, str] = {}
        self.refused: list[ComputeError] = []
        self.stopping = threading.Event()
        self.start()

    def spec(self, key: str) -> dict[str, Any]:
        """The job of this key."""
        return {"source": {"module": self.module}, "labels": {"load": self.name}, "args": [key]}

    def run(self) -> None:
        """Until told to stop."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            key = f"{self.name}-{number}"
            while key not in self.accepted:
                try:
                    self.accepted[key] = self.client.submit(self.spec(key), idempotency_key=key).job["id"]
                except ComputeError as error:
                    self.refused.append(error)
                    if not error.retryable:
                        raise
                    time.sleep(0.1)
            self.stopping.wait(self.pause_s)

    def more(self, count: int, seconds: float = 120) -> None:
        """Wait until so many more jobs were accepted."""
        enough = len(self.accepted) + count
        until(lambda: len(self.accepted) >= enough, seconds, f"{count} more jobs are accepted; {self.refused[-1:]}")

    def end(self) -> None:
        """Stop."""
        self.stopping.set()
        self.join(120)
        assert not self.is_alive()


def account(client: JobsClient, loads: list[Load], home: Path, seconds: float = 120) -> dict[str, dict[str, Any]]:
    """Wait until all jobs have ended, and check that each accepted one did so exactly once; returns them by id."""
    accepted = {job for each in loads for job in each.accepted.values()}
    assert accepted
    assert len(accepted) == sum(len(each.accepted) for each in loads)

    def unfinished() -> list[Any]:
        return [job for job in pages(client) if job["state"] not in TERMINAL]

    until(lambda: not unfinished(), seconds, f"all {len(accepted)} jobs end: {unfinished()[:3]}")
    listed = {str(job["id"]): dict(job) for job in pages(client)}
    assert set(listed) == accepted
    for job_id, job in listed.items():
        events = client.events(job_id)
        assert [event["type"] for event in events if event["type"] in TERMINAL] == [job["state"]], events
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert job["state"] == "succeeded", (job, events)
        if job["labels"].get("load"):
            assert client.output(job_id) == b"done\n"
    for each in loads:  # the keys still give the same jobs
        key, job_id = next(iter(each.accepted.items()))
        assert client.submit(each.spec(key), idempotency_key=key).job["id"] == job_id, "the key was forgotten"
    until(lambda: not leftovers(home), 120, "queues and outbox are empty")
    return listed


def leftovers(home: Path) -> list[tuple[Any, ...]]:
    """Messages, outbox rows and unclosed jobs in the database."""
    db = sqlite3.connect(f"file:{home}/db/hanzo.sqlite3?mode=ro", uri=True)
    try:
        found = db.execute("SELECT 'message', queue, body FROM messages").fetchall()
        found += db.execute("SELECT 'outbox', pk, body FROM records WHERE pk LIKE 'OUTBOX#%'").fetchall()
        found += db.execute(
            "SELECT 'due', pk, body FROM records WHERE pk LIKE 'JOB#%' AND sk = 'META' AND body NOT LIKE '%closed%'"
        ).fetchall()
    finally:
        db.close()
    return found
