"""The learner: takes what became of placements out of the store, and what it learnt from that into it, in one
transaction. So each observation counts once, however often the learner is started, ended, or run twice at a time.

Rows are removed instead of passed by: a cursor would have to trust the clocks of all who write them.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Final

from hanzo_compute.config import HLLM
from hanzo_compute.model import keys
from hanzo_compute.ports import ABSENT, TRANSACTION_MAX, Delete, Operation, Put, Record, WriteConflict
from hanzo_compute.routing import learning, snapshot
from hanzo_compute.routing.snapshot import Snapshot
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

ROWS: Final = TRANSACTION_MAX - 4
"""Observations of one fold; beside them there are the snapshot and a record of telemetry."""
FOLDS: Final = 10
"""Folds of one pass: what is left waits for the next."""
WAITING_COUNTED: Final = 1_000
"""A pool with more jobs waiting counts as having this many."""


def learn(ctx: Context) -> dict[str, int]:
    """One pass: fold all that waits, up to a bound; says how many of what. Passes may overlap and be cut short."""
    done: Counter[str] = Counter()
    if ctx.policy.routing != HLLM:
        return {}
    for _ in range(FOLDS):
        rows = _rows(ctx)
        if not rows or not _fold(ctx, rows, done):
            break
        if len(rows) < ROWS:
            break
    return {name: count for name, count in done.items() if count}


def stored(ctx: Context) -> tuple[int, Snapshot]:
    """Revision and value of what was learnt; a new one in place of one that cannot be read.

    The revision is that of the record which the caller replaces: ``ABSENT`` when there is none.
    """
    record = ctx.store.get(keys.routing(), fresh=True)
    if record is None:
        return ABSENT, Snapshot()
    try:
        return record.rev, snapshot.parse(record.body)
    except snapshot.Unreadable as error:
        log.warning("it is learnt anew: %s", error)
        return record.rev, Snapshot()


def _rows(ctx: Context) -> list[Record]:
    """The oldest observations of all shards."""
    found: list[Record] = []
    for shard in range(keys.SHARDS):
        found += ctx.store.query(keys.observed_partition(shard), limit=ROWS)
    return sorted(found, key=lambda record: record.key.sk)[:ROWS]


def _fold(ctx: Context, rows: list[Record], done: Counter[str]) -> bool:
    """Fold these rows; False when another learner had some of them first."""
    rev, before = stored(ctx)
    waiting = sum(
        ctx.store.count_index(keys.BY_POOL, keys.pool_partition(pool.name), WAITING_COUNTED)
        for pool in ctx.policy.pools
    )
    policy = ctx.policy
    folded = learning.fold(
        before,
        [record.body for record in rows],
        now_ms=ctx.clock.now_ms(),
        waiting=waiting,
        interval_ms=policy.telemetry_ms,
        begin_ms=policy.begin_ms,
    )
    operations: list[Operation] = [Put(keys.routing(), folded.snapshot.body(), expect=rev)]
    if folded.telemetry is not None:
        slot, seen = folded.telemetry
        operations.append(Put(keys.telemetry(slot), {"slot": slot, "seen": seen}))
    operations += [Delete(record.key, expect=record.rev) for record in rows]
    try:
        ctx.store.transact(operations)
    except WriteConflict:
        done["conflicts"] += 1
        return False
    for warning in folded.warnings:
        log.warning("%s", warning)
    done["folded"] += len(rows)
    done["telemetry"] += folded.telemetry is not None
    done["warnings"] += len(folded.warnings)
    return True
