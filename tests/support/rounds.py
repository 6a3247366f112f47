"""Rounds of a kill campaign: a point is armed, jobs of every kind go through the platform, and one process dies there.

Clients are patient: they repeat a call that could not be answered, as the platform's own client does.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hanzo_compute.adapters.http import JobsClient
from hanzo_compute.errors import ComputeError, Conflict
from tests.support import invariants
from tests.support.live import Platform, compiled, until
from tests.support.points import fault_points

T = TypeVar("T")

SLEEPER = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "tick\\n")
  (func (export "_start") (local $n i32)
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 5))
    (i32.store (i32.const 80) (i32.const 1))               ;; the monotonic clock
    (i64.store (i32.const 88) (i64.const 350000000))       ;; for 0.35 s
    (loop $again
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
      (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const %d))))))
"""
"""Says tick and sleeps, so many times."""

REPEATER = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $n i32)
    (drop (call $args (i32.const 64) (i32.const 1024)))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 39))               ;; "module", NUL, and an argument of 32 characters
    (loop $again
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 1000))))))
"""
"""Writes its argument a thousand times: more than fits into an outcome."""

PATIENCE_S = 60.0


def patiently(call: Callable[[], T]) -> T:
    """Repeat a call until it is answered."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except ComputeError as error:
            if not error.retryable or time.monotonic() > end:
                raise
            time.sleep(0.05)


class Armed(Platform):
    """A platform whose processes have the fault points."""

    def __init__(self, home: Path, **options: int) -> None:
        super().__init__(home, **options)
        self.points = home.parent / "points"
        shutil.copytree(Path(fault_points.__file__).parent, self.points, ignore=shutil.ignore_patterns("__pycache__"))
        self.accepted: dict[str, str] = {}
        self.number = 0
        self.modules: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        """With the folder of the points; the suite's own may not be on it."""
        return super().environment | {"PYTHONPATH": str(self.points)}

    def arm(self, name: str) -> None:
        """The next process that comes to this point dies there."""
        (self.points / "died").unlink(missing_ok=True)
        fresh = self.points / "arming"
        fresh.write_text(name)
        fresh.rename(self.points / "armed")

    @property
    def died(self) -> bool:
        """Whether a process has died at the armed point."""
        return (self.points / "died").exists()

    def upload(self) -> None:
        """Give the platform the programs of a round."""
        client = self.client()
        texts = {"short": SLEEPER % 1, "long": SLEEPER % 4, "endless": SLEEPER % 1_000_000, "large": REPEATER}
        self.modules = {name: client.upload_blob(compiled(text)) for name, text in texts.items()}

    def submit(self, client: JobsClient, program: str, **more: Any) -> str:
        """Submit one job under a key of its own, until it is accepted."""
        self.number += 1
        key = f"{program}-{self.number}"
        spec = {"source": {"module": self.modules[program]}, "labels": {"program": program}, **more}
        job = str(patiently(lambda: client.submit(spec, idempotency_key=key)).job["id"])
        self.accepted[key] = job
        again = patiently(lambda: client.submit(spec, idempotency_key=key))
        assert (again.job["id"], again.replayed) == (job, True)
        return job

    def round(self) -> None:
        """One job of each kind, each seen to its end; the calling test arms the point before."""
        failures: list[BaseException] = []

        def guarded(task: Callable[[], None]) -> None:
            try:
                task()
            except BaseException as error:
                failures.append(error)

        # Submitted one after the other, so that the point strikes wherever it will; then carried side by side.
        tasks = [self.short(), self.followed(), self.large(), self.cancelled()]
        threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive()
        if failures:
            raise failures[0]

    def ended(self, client: JobsClient, job: str) -> dict[str, Any]:
        """The job, once it has ended."""
        found: dict[str, Any] = patiently(lambda: client.wait(job, timeout_s=PATIENCE_S))
        return found

    def short(self) -> Callable[[], None]:
        """A small job with a small output."""
        client = self.client()
        job = self.submit(client, "short")

        def check() -> None:
            assert self.ended(client, job)["state"] == "succeeded"
            assert patiently(lambda: client.output(job)) == b"tick\n"

        return check

    def followed(self) -> Callable[[], None]:
        """A job whose log is followed while it runs: what is seen is what is stored."""
        client = self.client()
        job = self.submit(client, "long")

        def check() -> None:
            seen = "".join(entry["text"] for entry in client.follow(job))
            assert self.ended(client, job)["state"] == "succeeded"
            cursor, stored = "", ""
            while (page := patiently(partial(client.logs, job, cursor=cursor))).items:
                stored, cursor = stored + "".join(item["text"] for item in page.items), page.cursor
            assert seen == stored
            assert stored.endswith("tick\n" * 4)
            assert patiently(lambda: client.output(job)) == b"tick\n" * 4

        return check

    def large(self) -> Callable[[], None]:
        """A job whose output goes up as a blob, new each time."""
        client = self.client()
        argument = os.urandom(16).hex()
        job = self.submit(client, "large", args=[argument])

        def check() -> None:
            assert self.ended(client, job)["state"] == "succeeded"
            assert patiently(lambda: client.output(job)) == f"module\0{argument}".encode() * 1000

        return check

    def cancelled(self) -> Callable[[], None]:
        """A job that never ends by itself."""
        client = self.client()
        job = self.submit(client, "endless")

        def check() -> None:
            until(lambda: patiently(lambda: client.get(job))["state"] in ("running", "cancelled"), PATIENCE_S, "runs")
            try:
                patiently(lambda: client.cancel(job))
            except Conflict as error:  # it had been cancelled by a call whose answer was lost
                assert error.data["state"] == "cancelled", error.data  # noqa: PT017
            assert self.ended(client, job)["state"] == "cancelled"

        return check

    def check_at_rest(self) -> None:
        """Nothing is lost, doubled or left over."""
        until(lambda: not invariants.wrong_at_rest(self.home), 120, f"{invariants.wrong_at_rest(self.home)}")
        assert invariants.wrong_jobs(self.home, self.accepted.values()) == []
