"""A backup of a platform under load, restored elsewhere: every job in it ends once, by itself."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.http import ApiClient, HttpLeaseApi
from hanzo_compute.errors import Unauthenticated
from hanzo_compute.model.outcome import Category, Outcome
from hanzo_compute.ports import Report, Want
from tests.support.live import ECHO, Platform, compiled, pages, until
from tests.support.rounds import SLEEPER

pytestmark = [pytest.mark.kill, pytest.mark.slow]

TERMINAL = {"succeeded", "failed", "cancelled", "timed_out", "expired", "dead"}
TICKS = 100
LONG = SLEEPER % TICKS
"""A module that is still running when the backup is made: more than half a minute."""


class Load(threading.Thread):
    """Submits small jobs, each with its key."""

    def __init__(self, platform: Platform, module: str) -> None:
        super().__init__(daemon=True)
        self.client = platform.client()
        self.module = module
        self.accepted: dict[str, str] = {}
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(0.02):
            number += 1
            key = f"key-{number}"
            self.accepted[key] = self.client.submit(spec(self.module, key), idempotency_key=key).job["id"]


def spec(module: str, key: str) -> dict[str, Any]:
    return {"source": {"module": module}, "args": [key]}


@pytest.mark.timeout(900)
def test_what_a_backup_under_load_holds_ends_exactly_once(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    with Platform(tmp_path / "one") as one:
        client = one.client()
        module = client.upload_blob(compiled(ECHO))
        long = client.submit(spec(client.upload_blob(compiled(LONG)), "long")).job["id"]
        until(lambda: client.get(long)["state"] == "running", 120, "the long job runs")
        load = Load(one, module)
        load.start()
        until(lambda: len(load.accepted) >= 20, 120, "some jobs are accepted")
        before = dict(load.accepted)
        made = one.hzc("backup", str(file))
        assert (made.returncode, made.stdout) == (0, f"{file}\n".encode()), made
        later = len(load.accepted)
        assert client.get(long)["state"] == "running"
        stale_key = (one.home / "keys" / "runner.key").read_text().strip()
        until(lambda: len(load.accepted) > later, 120, "jobs are accepted after the backup")
        load.stopping.set()
        load.join(120)
        assert not load.is_alive()
        one.kill_supervisor()
    until(lambda: not one.processes(), 120, "nothing of the first platform is left")

    two = Platform(tmp_path / "two")
    restored = two.hzc("restore", str(file))
    assert restored.returncode == 0, restored
    modes = {path.stat().st_mode & 0o777 for path in two.home.rglob("*") if path.is_file()}
    assert modes == {0o600}
    with two:
        client = two.client()
        held = {str(job["id"]) for job in pages(client)}
        assert set(before.values()) | {long} <= held <= {*load.accepted.values(), long}
        # An agent of the first platform has a credential that the start has replaced.
        stale = HttpLeaseApi(ApiClient(two.url, stale_key))
        for attempt in (1, 2):
            with pytest.raises(Unauthenticated):
                stale.complete([Report(long, attempt, Outcome(category=Category.OK))])
        with pytest.raises(Unauthenticated):
            stale.lease(Want("local", "local-1", "ab" * 32), 0.0)
        for key, job in before.items():
            assert client.submit(spec(module, key), idempotency_key=key).job["id"] == job

        def unfinished() -> list[object]:
            return [job["id"] for job in pages(client) if job["state"] not in TERMINAL]

        until(lambda: not unfinished(), 300, "all jobs end")
        assert {str(job["id"]) for job in pages(client)} == held
        for job_id in held:
            events = client.events(job_id)
            assert [event["type"] for event in events if event["type"] in TERMINAL] == ["succeeded"], events
            assert client.output(job_id) == (b"tick\n" * TICKS if job_id == long else b"done\n")
        assert "lapsed" in [event["type"] for event in client.events(long)]
        assert two.stop() == 0
    done = two.hzc("doctor", "--repair", "--digests")
    assert (done.returncode, done.stdout) == (0, b""), done


@pytest.mark.timeout(600)
def test_a_platform_that_was_killed_needs_no_repair(tmp_path: Path) -> None:
    """Backups and repairs beside a start that was cut short; the sweep of the next start."""
    with Platform(tmp_path / "home") as platform:
        module = platform.client().upload_blob(compiled(ECHO))
        jobs = [platform.client().submit(spec(module, str(number))).job["id"] for number in range(10)]
        refused = platform.hzc("doctor", "--repair")
        assert (refused.returncode, b"hzc down" in refused.stderr) == (2, True), refused
        platform.kill_supervisor()
        until(lambda: not platform.processes(), 120, "nothing is left")
        upload = platform.home / "blobs" / ".new" / "0123456789abcdef"
        upload.write_bytes(b"half an upload")
        made = platform.hzc("backup", str(tmp_path / "b.tar"), "-o", "json")
        assert made.returncode == 0, made
        platform.start()
        until(lambda: not upload.exists(), 120, "the start removes it")
        for job in jobs:
            assert platform.client().wait(job, timeout_s=200)["state"] == "succeeded"
        assert platform.stop() == 0
        repaired = platform.hzc("doctor", "--repair", "--digests")
        assert (repaired.returncode, repaired.stdout) == (0, b""), repaired
