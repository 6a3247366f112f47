"""Ports that fail as real ones do: before the call, after it took effect, by conflict, staleness, duplicates.

store = FaultyStore(inner, scripted("transact:reply_lost"))     # the first transact, then no more
store = FaultyStore(inner, seeded(random, 0.1))                 # each call with this probability
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from random import Random
from typing import Any

from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import (
    Body,
    Delete,
    Entries,
    JobStore,
    Message,
    Operation,
    Put,
    Queue,
    Record,
    Send,
)


class Fault(StrEnum):
    BEFORE = "before"
    """The call fails and did nothing."""
    REPLY_LOST = "reply_lost"
    """The call took effect and fails all the same."""
    CONFLICT = "conflict"
    """Somebody else writes one of the records just before."""
    STALE = "stale"
    """A read shows what was there before the last write."""
    DUPLICATE = "duplicate"
    """A message comes that was delivered before."""


Choose = Callable[[str, Sequence[Fault]], Fault | None]
"""Given a method's name and the faults that it can have: the one that strikes now, if any."""


def scripted(*steps: str) -> Choose:
    """Each ``method:fault`` strikes once, in this order, as soon as that method is called."""
    waiting = [(step.split(":")[0], Fault(step.split(":")[1])) for step in steps]

    def choose(method: str, possible: Sequence[Fault]) -> Fault | None:
        if waiting and waiting[0][0] == method and waiting[0][1] in possible:
            return waiting.pop(0)[1]
        return None

    return choose


def seeded(random: Random, rate: float) -> Choose:
    """Any possible fault strikes with probability ``rate`` per call."""

    def choose(_method: str, possible: Sequence[Fault]) -> Fault | None:
        return random.choice(possible) if random.random() < rate else None

    return choose


class _Faulty:
    def __init__(self, choose: Choose) -> None:
        self._choose = choose

    def _strike(self, method: str, *more: Fault) -> Fault | None:
        """The fault that the caller has to apply; raises if the call is not to happen at all."""
        fault = self._choose(method, (Fault.BEFORE, Fault.REPLY_LOST, *more))
        if fault is Fault.BEFORE:
            raise Unavailable(f"injected: {method} did nothing")
        return fault

    @staticmethod
    def _reply(fault: Fault | None, method: str) -> None:
        if fault is Fault.REPLY_LOST:
            raise Unavailable(f"injected: the reply of {method} was lost")


class FaultyStore(_Faulty):
    """A JobStore around another; for stale reads and conflicts it knows what was written through it."""

    def __init__(self, inner: JobStore, choose: Choose) -> None:
        super().__init__(choose)
        self._inner = inner
        self._entries: dict[Key, Entries] = {}
        self._earlier: dict[Key, Record | None] = {}
        self._index_reads: dict[tuple[Any, ...], list[tuple[str, Record]]] = {}

    def get(self, key: Key, *, fresh: bool = False) -> Record | None:
        fault = self._strike("get", *(() if fresh or key not in self._earlier else (Fault.STALE,)))
        found = self._earlier[key] if fault is Fault.STALE else self._inner.get(key, fresh=fresh)
        self._reply(fault, "get")
        return found

    def query(
        self, pk: str, *, prefix: str = "", after: str = "", limit: int = 100, reverse: bool = False
    ) -> list[Record]:
        fault = self._strike("query")
        found = self._inner.query(pk, prefix=prefix, after=after, limit=limit, reverse=reverse)
        self._reply(fault, "query")
        return found

    def query_index(
        self,
        index: str,
        pk: str,
        *,
        after: str = "",
        before: str = "",
        limit: int = 100,
        reverse: bool = False,
    ) -> list[tuple[str, Record]]:
        args = (index, pk, after, before, limit, reverse)
        fault = self._strike("query_index", *((Fault.STALE,) if args in self._index_reads else ()))
        if fault is Fault.STALE:
            return self._index_reads[args]
        found = self._inner.query_index(index, pk, after=after, before=before, limit=limit, reverse=reverse)
        self._index_reads[args] = found
        self._reply(fault, "query_index")
        return found

    def count_index(self, index: str, pk: str, most: int) -> int:
        fault = self._strike("count_index")
        found = self._inner.count_index(index, pk, most)
        self._reply(fault, "count_index")
        return found

    @property
    def sends(self) -> bool:
        return self._inner.sends

    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        known = [operation.key for operation in operations if operation.key in self._entries]
        fault = self._strike("transact", *((Fault.CONFLICT,) if known else ()))
        if fault is Fault.CONFLICT:
            self._rival_writes(known[0])
        earlier = {operation.key: self._inner.get(operation.key, fresh=True) for operation in operations}
        self._inner.transact(operations, sends)
        self._earlier.update(earlier)
        for operation in operations:
            if isinstance(operation, Put):
                self._entries[operation.key] = operation.index
            elif isinstance(operation, Delete):
                self._entries.pop(operation.key, None)
        self._reply(fault, "transact")

    def _rival_writes(self, key: Key) -> None:
        found = self._inner.get(key, fresh=True)
        if found is not None:
            self._inner.transact([Put(key, found.body, index=self._entries[key])])


class FaultyQueue(_Faulty):
    """A Queue around another; duplicates are messages that it delivered before."""

    def __init__(self, inner: Queue, choose: Choose) -> None:
        super().__init__(choose)
        self._inner = inner
        self._delivered: dict[str, list[Message]] = {}

    def send(self, queue: str, body: Body, *, delay_s: int = 0) -> None:
        fault = self._strike("send")
        self._inner.send(queue, body, delay_s=delay_s)
        self._reply(fault, "send")

    def receive(self, queue: str, *, limit: int = 10, visibility_s: int = 30) -> list[Message]:
        before = self._delivered.setdefault(queue, [])
        fault = self._strike("receive", *((Fault.DUPLICATE,) if before else ()))
        if fault is Fault.DUPLICATE:
            return before[-limit:]
        found = self._inner.receive(queue, limit=limit, visibility_s=visibility_s)
        before.extend(found)
        self._reply(fault, "receive")
        return found

    def ack(self, messages: Sequence[Message]) -> None:
        fault = self._strike("ack")
        self._inner.ack(messages)
        self._reply(fault, "ack")

    def nack(self, message: Message, *, delay_s: int = 0) -> None:
        fault = self._strike("nack")
        self._inner.nack(message, delay_s=delay_s)
        self._reply(fault, "nack")

    def redrive(self, queue: str, *, limit: int = 10) -> int:
        fault = self._strike("redrive")
        moved = self._inner.redrive(queue, limit=limit)
        self._reply(fault, "redrive")
        return moved

    def hasten(self, queue: str, *, by_s: int) -> int:
        fault = self._strike("hasten")
        moved = self._inner.hasten(queue, by_s=by_s)
        self._reply(fault, "hasten")
        return moved
