"""Writes what a platform of this release may have in its database, as SQL: ``python -m tests.support.upgrades.make``.

A release that changes the schema keeps the output of the one before it as ``v<schema version>.sql``. It is made once,
and never again: what is there then is what a platform out there had.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

from hanzo_compute import wiring
from hanzo_compute.adapters.local import schema
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.queue import SqliteQueue
from hanzo_compute.adapters.memory import ManualClock, SeededIds
from hanzo_compute.config import Config, Policy
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import LogEntry
from hanzo_compute.services import cancel, complete, credentials, lease, outbox, place, submit
from hanzo_compute.services.lease import Claim
from tests.support import statements
from tests.support.writer import WriterProcess

TENANT = "default"
FAR_MS = 4_000_000_000_000
"""Keys are remembered until the year 2096."""


def main() -> int:
    """Make it, and print it."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with WriterProcess(home) as writer:
            key = fill(home)
            writer.stop()
        print(f"-- What a platform of schema version {len(schema.MIGRATIONS)} had. Made once, by make.py.")
        print(f"-- The owner's key: {key}")
        db = sqlite3.connect(schema.path_of(home))
        for line in db.iterdump():
            if line.startswith("INSERT"):
                print(line)
        db.close()
    return 0


def fill(home: Path) -> str:
    """Jobs in every state, and all that belongs to them; returns the owner's key."""
    clock, ids = ManualClock(), SeededIds(Random(1))
    policy = Policy(idempotency_ms=FAR_MS - clock.now_ms())
    made = wiring.local(Config("local", home, "http://127.0.0.1:1", home, policy))
    commits = made.commits
    assert isinstance(commits, WriterClient)
    limits = {outbox.DISPATCH: 2, outbox.COMPLETION: 2}
    ctx = replace(made, clock=clock, ids=ids, queue=SqliteQueue(commits, clock, ids, limits))
    key = credentials.ensure_owner(ctx)
    assert key is not None
    credentials.ensure_runner(ctx)

    def submitted(name: str, **fields: object) -> str:
        spec = {"source": {"code": f"print('{name}')", "language": "python"}, "labels": {"was": name}, **fields}
        return submit.submit(ctx, TENANT, parse_spec(spec), idempotency_key=f"key-{name}").job.id

    def settle() -> None:
        ticket = commits.take()
        if ticket is not None:  # indexes show what is committed
            commits.wait(ticket)

    def dispatched() -> None:
        found = ctx.queue.receive(outbox.DISPATCH)
        for message in found:
            place.place(ctx, [message.body["job"]])
        ctx.queue.ack(found)
        settle()

    def running(name: str, **fields: object) -> Claim:
        submitted(name, **fields)
        dispatched()
        (found,) = lease.acquire(ctx, statements.want("agent-0"), "platform")
        return Claim(found.job, found.attempt, "platform")

    def closed() -> None:
        found = ctx.queue.receive(outbox.COMPLETION)
        for message in found:
            complete.close(ctx, [message.body["job"]])
        ctx.queue.ack(found)

    def ended(name: str, category: Category, **fields: object) -> None:
        claim = running(name, **fields)
        lease.append_logs(ctx, claim, 1, [LogEntry(clock.now_ms(), "stdout", f"{name}\n")])
        output = Output(name="stdout", size=3, inline_base64="b2xk")
        complete.complete(ctx, statements.ended(ctx, claim, Outcome(category=category, exit_code=0, outputs=[output])))

    ended("succeeded", Category.OK)
    ended("failed", Category.EXIT)
    ended("timed_out", Category.TIMEOUT)
    cancel.cancel(ctx, TENANT, submitted("cancelled"))
    claim = running("dead")
    for attempt in range(1, policy.max_lapses + 1):
        lost = Outcome(category=Category.PLATFORM, detail="lost")
        complete.complete(ctx, complete.Ended(replace(claim, attempt=attempt), lost))
        clock.advance(60_000)
        dispatched()
        lease.acquire(ctx, statements.want("agent-0"), "platform")
    submitted("expired", deadline=format_time(clock.now_ms() + 1000))
    clock.advance(2000)
    dispatched()
    closed()
    closed()
    # From here on nothing comes to an end.
    ended("not_closed", Category.OK)
    retried = running("retrying", retry={"max_attempts": 3})
    complete.complete(ctx, statements.ended(ctx, retried, Outcome(category=Category.EXIT, exit_code=1)))
    running("running")
    asked = running("cancel_requested")
    cancel.cancel(ctx, TENANT, asked.job)
    submitted("placed")
    dispatched()
    submitted("queued")
    ctx.queue.receive(outbox.DISPATCH, visibility_s=1)  # in flight when it stopped
    for number in range(3):  # sent to nobody: the outbox is all that knows of them
        with_lost_message(ctx, f"outbox_{number}", submitted)
    settle()
    ctx.store.close()  # type: ignore[attr-defined]
    commits.close()
    return key


def with_lost_message(ctx: wiring.Container, name: str, submitted: object) -> None:
    """A job whose process was killed between its transaction and its message."""
    flush = outbox.flush
    try:
        outbox.flush = lambda ctx, rows: None
        submitted(name)  # type: ignore[operator]
    finally:
        outbox.flush = flush


if __name__ == "__main__":
    sys.exit(main())
