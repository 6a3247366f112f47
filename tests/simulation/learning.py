"""Learners that crash, overtake each other and find their record spoilt.

Each observation counts once, and comes with the end that it tells of; jobs are placed whatever there is to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryDatabase
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.errors import ComputeError
from hanzo_compute.model import keys
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Delete, Operation, Put
from hanzo_compute.routing import snapshot
from hanzo_compute.services import learn
from hanzo_compute.services.context import Context
from tests.simulation.host import Life
from tests.simulation.scheduler import SECOND
from tests.simulation.violation import require

OBSERVED = keys.observed_partition(0).removesuffix("0")
SPOILT: tuple[dict[str, Any], ...] = ({"format": 1}, {"format": 9}, {"engine": 3})


def learner(life: Life) -> None:
    """The schedule of the learner, every two seconds."""
    while True:
        with suppress(ComputeError):
            life.handle(learn.learn)
        life.scheduler.pause(2 * SECOND)


def spoiler(random: Random, times: int) -> Any:
    """What damages the record of what was learnt, so often, within half a minute."""
    ends = sorted(random.randrange(30 * SECOND) for _ in range(times))
    bodies = [random.choice(SPOILT) for _ in range(times)]

    def work(life: Life) -> None:
        while ends:
            life.scheduler.pause(max(1, ends[0] - life.scheduler.now_us))
            with suppress(ComputeError):
                life.handle(lambda ctx: _spoil(ctx, bodies[0]))
            del ends[0], bodies[0]
        life.scheduler.pause(3600 * SECOND)

    return work


def _spoil(ctx: Context, body: dict[str, Any]) -> None:
    record = ctx.store.get(keys.routing(), fresh=True)
    if record is not None:
        ctx.store.transact([Put(record.key, {**body, "spoilt": True}, expect=record.rev)])


@dataclass
class LearningWatch:
    """What must hold at every transaction that writes observations, or what was learnt from them."""

    def applied(self, operations: Mapping[Key, Operation], before: Mapping[Key, StoredRecord | None]) -> None:
        """A transaction has just been applied."""
        taken, routing = 0, operations.get(keys.routing())
        for key, operation in operations.items():
            if not key.pk.startswith(OBSERVED):
                continue
            if isinstance(operation, Put):
                self._observed(key, operations, before)
            elif isinstance(operation, Delete):
                require(before[key] is not None, f"{key} was taken twice")
                taken += 1
        if taken or isinstance(routing, Put):
            require(isinstance(routing, Put), f"{taken} observations were taken, and nothing was learnt from them")
            assert isinstance(routing, Put)
            if not routing.body.get("spoilt"):
                was, now = _folded(before[keys.routing()]), routing.body["folded"]
                require(now - was == taken, f"{taken} observations were taken, and {now - was} learnt from")

    def _observed(
        self, key: Key, operations: Mapping[Key, Operation], before: Mapping[Key, StoredRecord | None]
    ) -> None:
        _, job_id, attempt = key.sk.split("#")
        meta = operations.get(keys.job(job_id))
        require(before[key] is None and isinstance(meta, Put), f"{key} was written without the end that it tells of")
        assert isinstance(meta, Put)
        stored = before[meta.key]
        assert stored is not None
        old = decode_body(stored.body)
        ended = old["state"] == "running" and old["attempt"] == int(attempt) and meta.body["state"] != "running"
        require(ended, f"{key} tells of an attempt that did not end: {job_id} was {old['state']}, {old['attempt']}")

    @staticmethod
    def ended(job_id: str, old: dict[str, Any], puts: Mapping[Key, Put], kind: str) -> None:
        """A job that ran does no more; ``kind`` is the type of the event that tells so."""
        rows = [key for key in puts if key.pk.startswith(OBSERVED) and f"#{job_id}#" in key.sk]
        outcome = getattr(puts.get(keys.attempt(job_id, old["attempt"])), "body", {}).get("outcome")
        if outcome and old.get("data_key") and outcome["category"] == "platform":
            require(not rows, f"attempt {old['attempt']} of {job_id} was given up sealed, and observed")
        elif outcome or kind in ("lapsed", "dead"):
            require(len(rows) == 1, f"attempt {old['attempt']} of {job_id} ended with {len(rows)} observations")
        elif kind == "released":
            require(not rows, f"attempt {old['attempt']} of {job_id} was given back, and observed")


def _folded(stored: StoredRecord | None) -> int:
    if stored is None:
        return 0
    try:
        return snapshot.parse(decode_body(stored.body)).folded
    except snapshot.Unreadable:
        return 0


def waiting(database: MemoryDatabase) -> str | None:
    """Observations that nobody has learnt from."""
    left = [sk for pk, rows in database.partitions.items() if pk.startswith(OBSERVED) for sk in rows]
    return f"observations are left: {left}" if left else None


def check(database: MemoryDatabase) -> None:
    """At rest: what was learnt can be read, or there is nothing; every placement left its trace."""
    for pk, rows in database.partitions.items():
        if not pk.startswith("JOB#"):
            continue
        events = [decode_body(stored.body) for sk, stored in rows.items() if sk.startswith("EVENT#")]
        placed, traces = sum(each["type"] == "placed" for each in events), [sk for sk in rows if keys.TRACE in sk]
        require(placed == len(traces), f"{pk} was placed {placed} times, and has the traces {traces}")
