"""Messages that a transaction wants sent.

Where the store holds the queues, they are sent by the transaction itself. Elsewhere they are written with it, sent
after it, and sent again if that was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hanzo_compute.errors import Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, Delete, Operation, Put, Send
from hanzo_compute.services.context import Context

DISPATCH = "dispatch"
COMPLETION = "completion"

AHEAD_MS = 5_000
"""Clocks of two machines may differ by this much. What is further ahead is of a clock that has been set back."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """One message to be sent, not before ``not_before_ms``."""

    key: Key
    queue: str
    message: dict[str, Any]
    not_before_ms: int

    def put(self) -> Put:
        """The operation that goes into the transaction."""
        body = {"queue": self.queue, "message": self.message, "not_before_ms": self.not_before_ms}
        return Put(self.key, body, expect=ABSENT)


def row(ctx: Context, queue: str, job: Job, *, delay_ms: int = 0) -> Row:
    """A row that tells ``queue`` about a job, which has had ``job.attempt`` attempts by then."""
    now = ctx.clock.now_ms()
    key = keys.outbox(keys.shard(job.id), f"{now:015d}#{ctx.ids.new('m', now)}")
    return Row(key, queue, {"job": job.id, "attempt": job.attempt}, now + delay_ms)


def transact(ctx: Context, operations: Sequence[Operation], rows: Sequence[Row]) -> None:
    """Apply the operations, all or none, and see to it that the messages are sent if they are applied.

    Raises:
        WriteConflict, Unavailable: see :meth:`~hanzo_compute.ports.JobStore.transact`.
    """
    if ctx.store.sends:
        ctx.store.transact(operations, [Send(row.queue, row.message, _delay_s(ctx, row)) for row in rows])
        return
    ctx.store.transact([*operations, *(row.put() for row in rows)])
    flush(ctx, rows)


def flush(ctx: Context, rows: Sequence[Row]) -> None:
    """Send rows whose transaction has been applied. What fails is left to :func:`sweep`."""
    if not rows:
        return
    try:
        for each in rows:
            _send(ctx, each)
        ctx.store.transact([Delete(each.key) for each in rows])
    except Unavailable as error:
        log.warning("outbox rows wait for the reconciler: %s", error.message)


def sweep(ctx: Context, *, limit: int = 100) -> int:
    """Send rows that have waited too long, oldest first; returns how many.

    So have those of a time that has not come yet: how long is not known, and a message too many does no harm.
    """
    now = ctx.clock.now_ms()
    sent = 0
    for shard in range(keys.SHARDS):
        for record in ctx.store.query(keys.outbox(shard, "").pk, limit=limit):
            age_ms = now - int(record.key.sk.split("#", 1)[0])
            if -AHEAD_MS <= age_ms < ctx.policy.outbox_ms:
                continue
            body = record.body
            not_before = body["not_before_ms"] + min(0, age_ms)
            _send(ctx, Row(record.key, body["queue"], body["message"], not_before))
            ctx.store.transact([Delete(record.key)])
            sent += 1
    return sent


def _send(ctx: Context, each: Row) -> None:
    ctx.queue.send(each.queue, each.message, delay_s=_delay_s(ctx, each))


def _delay_s(ctx: Context, each: Row) -> int:
    delay_ms = max(0, each.not_before_ms - ctx.clock.now_ms())
    return min(-(-delay_ms // 1000), 900)
