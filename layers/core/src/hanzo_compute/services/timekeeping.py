"""The wall clock is not to be trusted: it is set back and forth, and stands in every record that waits for a time.

Each pass of the reconciler compares the time with the last that a pass has seen. Set *back*, whatever waits would
wait for as much longer: it is brought forward. Set *forward* (or the platform was down: nobody can tell), leases have
lapsed and retries are due early, which costs nothing that was accepted; but idempotency keys would be forgotten before
the clients that may still repeat them had the time they were promised, so those are kept once more.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from hanzo_compute.errors import NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.states import State
from hanzo_compute.ports import ABSENT, DEAD_LETTERS, Body, Operation, Put, Record, WriteConflict
from hanzo_compute.services import firing, outbox, records
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

NOTE_MS: Final = 60_000
"""How often the time is written down: a step back by less than that delays things by no more than that."""
GAP_MS: Final = 300_000
"""More than this between two passes is a gap: a clock that was set forward, or a platform that was down."""
PAGE: Final = 100

Gap = tuple[int, int]
"""Times (ms, from and to) that no pass has seen."""


def watch(ctx: Context, repaired: Counter[str]) -> Gap | None:
    """Compare the clock with what earlier passes saw, and repair; returns the last gap, if there was one."""
    record = ctx.store.get(keys.clock())
    now = ctx.clock.now_ms()
    if record is not None and now < record.body["seen_ms"]:
        record = ctx.store.get(keys.clock(), fresh=True)
    if record is None:
        _note(ctx, None, {"seen_ms": now})
        return None
    seen, gap, again = record.body["seen_ms"], record.body.get("gap"), record.body.get("again", False)
    if seen - now > outbox.AHEAD_MS:
        log.warning("the clock was set back by %d s: what waits is brought forward", (seen - now) // 1000)
        _bring_forward(ctx, seen - now, repaired)
        # Once more in a minute: who had asked for the time before may write it down after this pass.
        _note(ctx, record, {"seen_ms": now, "again": True, **({"gap": gap} if gap else {})})
        repaired["clock_set_back"] += 1
    elif now - seen >= NOTE_MS:
        if again:
            _bring_forward(ctx, 0, repaired)
        if now - seen > GAP_MS:
            gap = [seen, now]
        _note(ctx, record, {"seen_ms": now, **({"gap": gap} if gap else {})})
    return (gap[0], gap[1]) if gap else None


def keep_once_more(ctx: Context, record: Record, gap: Gap | None) -> Put | None:
    """For what expires: its new record, if its time passed in a gap and that happens first. A nonce is never kept."""
    body = record.body
    if gap is None or keys.is_challenge(record.key) or body.get("kept") or not gap[0] < body["expires_ms"] <= gap[1]:
        return None
    return _expiring(record, {**body, "kept": True}, ctx.clock.now_ms() + ctx.policy.idempotency_ms)


def recall(ctx: Context, job: Job, by_ms: int) -> records.Change | None:
    """What brings a job's times forward after the clock was set back by (at least) ``by_ms``; None: nothing does.

    Times are brought to what they would be if they were written now. Only a retry's wait, which began at some time
    before, is moved by ``by_ms``.
    """
    now, policy = ctx.clock.now_ms(), ctx.policy
    found = job
    due = now + policy.resend_ms
    if job.state is State.RUNNING and job.lease_until_ms is not None:
        found = replace(found, lease_until_ms=min(job.lease_until_ms, now + policy.lease_ms))
        due = now + policy.lease_ms
    elif job.state is State.RETRYING and job.not_before_ms is not None:
        waits = job.not_before_ms if job.not_before_ms <= now else max(now, job.not_before_ms - by_ms)
        found = replace(found, not_before_ms=waits)
        due = waits + policy.resend_ms
    elif job.state is State.PLACED and job.placed_ms is not None and job.placed_ms > now:
        found = replace(found, placed_ms=max(0, min(now, job.placed_ms - by_ms)))
    if found.due_ms is not None and job.state is not State.PLACED:
        found = replace(found, due_ms=min(found.due_ms, due))
    if found.followed_until_ms is not None and not job.state.terminal:
        found = replace(found, followed_until_ms=min(found.followed_until_ms, now + policy.follow_ms))
    return None if found == job else records.Change(found)


def _bring_forward(ctx: Context, by_ms: int, repaired: Counter[str]) -> None:
    """All that waits for a time. May be cut short, and is then done again."""
    by_s = -(-by_ms // 1000)
    for queue in (outbox.DISPATCH, outbox.COMPLETION):
        for name in (queue, queue + DEAD_LETTERS):
            repaired["messages_hastened"] += ctx.queue.hasten(name, by_s=by_s) if by_s else 0
    after = keys.due_before(ctx.clock.now_ms())
    for pool in ctx.policy.pools:
        for page in _pages(ctx, keys.BY_POOL, keys.pool_partition(pool.name), after):
            _recall_all(ctx, page, by_ms, repaired)
    for shard in range(keys.SHARDS):
        for page in _pages(ctx, keys.BY_DUE, keys.due_partition(shard), after):
            _recall_all(ctx, [record for record in page if "state" in record.body], by_ms, repaired)
            others = [record for record in page if "state" not in record.body]
            _recall_schedules(ctx, [record for record in others if record.key.pk.startswith(keys.SCHEDULE)], repaired)
            _shorten_keys(ctx, [record for record in others if not record.key.pk.startswith(keys.SCHEDULE)])


def _pages(ctx: Context, index: str, partition: str, after: str) -> Iterator[list[Record]]:
    while found := ctx.store.query_index(index, partition, after=after, limit=PAGE):
        yield [record for _, record in found]
        after = found[-1][0]


def _recall_all(ctx: Context, page: list[Record], by_ms: int, repaired: Counter[str]) -> None:
    for record in page:
        if recall(ctx, Job.from_record(record.body), by_ms) is None:
            continue
        try:
            records.change(ctx, record.body["id"], lambda job: recall(ctx, job, by_ms))
        except NotFound:
            continue
        repaired["jobs_brought_forward"] += 1


def _recall_schedules(ctx: Context, page: list[Record], repaired: Counter[str]) -> None:
    for record in page:
        put = firing.recall(ctx, record)
        try:
            if put is not None:
                ctx.store.transact([put])
                repaired["schedules_brought_forward"] += 1
        except WriteConflict:
            continue  # it has been fired or changed since, with the time of now


def _shorten_keys(ctx: Context, page: list[Record]) -> None:
    """Nothing is kept for longer than if it had been written just now."""
    late: list[Operation] = []
    for record in page:
        latest = ctx.clock.now_ms() + (ctx.policy.audit_ms if keys.is_audit(record.key) else ctx.policy.idempotency_ms)
        if record.body["expires_ms"] > latest:
            late.append(_expiring(record, record.body, latest))
    try:
        if late:
            ctx.store.transact(late)
    except WriteConflict:
        return  # another pass is at it


def _expiring(record: Record, body: Body, at_ms: int) -> Put:
    entry = keys.expiry_entry(at_ms, record.key)
    return Put(record.key, {**body, "expires_ms": at_ms}, expect=record.rev, index={keys.BY_DUE: entry})


def _note(ctx: Context, record: Record | None, body: Body) -> None:
    try:
        ctx.store.transact([Put(keys.clock(), body, expect=ABSENT if record is None else record.rev)])
    except WriteConflict:
        return  # another pass has written its own time
