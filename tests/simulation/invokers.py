"""Processes that answer invocations and write them in batches; what was told of them, and what must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryDatabase
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.errors import ComputeError, NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.invocation import Invocation
from hanzo_compute.model.keys import Key
from hanzo_compute.model.outcome import Category, Usage
from hanzo_compute.ports import Body, Put
from hanzo_compute.services import batches, log
from hanzo_compute.services.context import Context
from hanzo_compute.services.invocations import Batcher
from hanzo_compute.transparency.receipt import verify
from tests.simulation import treelog
from tests.simulation.host import Answer, Life
from tests.simulation.scheduler import SECOND, Scheduler
from tests.simulation.violation import require
from tests.support.invocations import invocation, outcome

TENANTS: Final = ("acme", "globex")
Call = Callable[[str, Callable[[Context], Answer[Any]]], Any]


@dataclass
class InvocationWatch:
    """What invokers have answered, and what they were told is written."""

    answered: dict[str, Invocation] = field(default_factory=dict)
    flushed: set[str] = field(default_factory=set)
    left: int = 0
    """Invocations still to come."""
    busy: set[str] = field(default_factory=set)
    """Processes that have something to write, or would have if they had not died."""

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        return not self.left and not self.busy

    def applied(
        self, puts: Mapping[Key, Put], before: Mapping[Key, StoredRecord | None], database: MemoryDatabase
    ) -> None:
        """A transaction has just been applied."""
        for key, put in puts.items():
            if not key.pk.startswith(keys.BATCH):
                continue
            last = key.sk.partition("#")[2]
            pair = {Key(key.pk, f"{keys.LEAF}{last}"), Key(key.pk, f"{keys.STATEMENTS}{last}")}
            if key.sk.startswith(keys.STATEMENTS):
                require(before[key] is None and pair <= puts.keys(), f"{key} was written twice, or without its leaf")
                self._batch(key, put.body, database)
            elif before[key] is None:
                require(pair <= puts.keys() and "index" not in put.body, f"{key} was written without its batch")
            else:
                old = decode_body(before[key].body)  # type: ignore[union-attr]
                require("index" not in old, f"{key} has got two places")

    def _batch(self, key: Key, body: Body, database: MemoryDatabase) -> None:
        tenant = key.pk.split("#")[1]
        ids = [row[1] for row in body["rows"]]
        for each in ids:
            require(self.answered[each].tenant == tenant, f"{each} is in a batch of {tenant}")
        for other, stored in _stored(database):
            twice = set(ids) & {row[1] for row in stored["rows"]} if other != key else set()
            require(not twice, f"{twice} is in two batches: {key.sk} and {other.sk}")
        require(len(ids) == len(set(ids)), f"an invocation is twice in {key.sk}")
        total = sum(_cost(self.answered[each]) for each in ids)
        units = body["leaf"]["body"]["bill"]["units"]
        require(units == str(total), f"{key.sk} costs {units}, and its invocations {total}")

    def check(self, database: MemoryDatabase, ctx: Context) -> None:
        """At rest: what was written is there once, with a receipt that holds."""
        there = [row[1] for _, body in _stored(database) for row in body["rows"]]
        require(self.flushed <= set(there), f"written, and lost: {sorted(self.flushed - set(there))}")
        key = log.verifier_key(ctx) if there else None
        for each in there[:3] + there[-1:]:
            given = self.answered[each]
            found = batches.receipt(ctx, given.tenant, each).receipt
            require(found is not None, f"the receipt of {each} waits at rest")
            proven = verify(found, lambda _: key, lambda *_: True, job=each)
            require(proven.units == _cost(given), f"{each} was billed {proven.units}")


def _stored(database: MemoryDatabase) -> list[tuple[Key, Body]]:
    return [
        (Key(pk, sk), decode_body(stored.body))
        for pk, records in sorted(database.partitions.items())
        for sk, stored in sorted(records.items())
        if pk.startswith(keys.BATCH) and sk.startswith(keys.STATEMENTS)
    ]


def _cost(given: Invocation) -> int:
    used = {"attempts": 1, **given.outcome.usage.model_dump()}
    return math.ceil(sum(rate * used[name] for name, rate in treelog.RATES.items()))


def work(random: Random, watch: InvocationWatch, name: str) -> Callable[[Life], None]:
    """A process that answers and flushes: its batcher dies with it."""
    watch.busy.add(name)

    def run(life: Life) -> None:
        batcher = Batcher("sim")
        while True:
            for _ in range(random.randrange(4)):
                if watch.left:
                    watch.left -= 1
                    _answer(random, watch, life, batcher)
            life.scheduler.pause(random.randrange(SECOND))
            if batcher.due(life.scheduler.now_ms):
                watch.busy.add(name)
                with suppress(ComputeError):
                    watch.flushed.update(life.handle(batcher.flush))
            elif not watch.left and not batcher.waits:
                watch.busy.discard(name)

    return run


def _answer(random: Random, watch: InvocationWatch, life: Life, batcher: Batcher) -> None:
    wall_ms = random.randrange(3000)
    usage = Usage(wall_ms=wall_ms, memory_mib_ms=64 * wall_ms)
    category = random.choice((Category.OK, Category.OK, Category.TRAP, Category.PLATFORM))
    tenant = random.choice(TENANTS)
    made = invocation(life.ctx, tenant=tenant, outcome=outcome(category=category, exit_code=None, usage=usage))
    if category is not Category.PLATFORM:
        watch.answered[made.id] = made
    batcher.add(made)


def read(random: Random, scheduler: Scheduler, call: Call, watch: InvocationWatch) -> None:
    """A tenant asks for receipts of what was written; another tenant is told that there are none."""
    for _ in range(2):
        while not watch.flushed:
            if watch.done:
                return
            scheduler.pause(SECOND)
        asked = random.choice(sorted(watch.flushed))
        tenant = watch.answered[asked].tenant
        found = None
        while found is None:
            with suppress(NotFound):  # what was read was a moment old
                found = call(f"receipt {asked}", lambda ctx: (batches.receipt(ctx, tenant, asked), ())).receipt  # noqa: B023
            scheduler.pause(SECOND // 2)
        require(found["statement"]["invocation"] == asked, f"the receipt of {asked} is of another one")
        other = TENANTS[1 - TENANTS.index(tenant)]
        with suppress(NotFound):
            call("spy", lambda ctx: (batches.receipt(ctx, other, asked), ()))  # noqa: B023
            require(False, f"{other} can read the receipt of {asked} of {tenant}")
