"""Random sequences of calls: SQLite behaves as the memory twin does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, Check, Delete, Message, Operation, Put, Record, WriteConflict
from tests.support.backends import MemoryBackend, Process, SqliteBackend
from tests.support.writer import WriterProcess

# Each of some 3000 steps may wait for the disk.
pytestmark = pytest.mark.timeout(900)

Pair = tuple[MemoryBackend, SqliteBackend, list[Process]]

SETTINGS = settings(max_examples=100, stateful_step_count=30, deadline=None)
NAMES = ["a", "ab", "b", "é", "\ud7ff", "\ue000", "\U0001f600", "a\u0000"]

names = st.sampled_from(NAMES)
bodies = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=9) | st.none(), max_size=2)
expectations = st.none() | st.sampled_from([ABSENT, 1, 2, 3])
entries = st.dictionaries(st.sampled_from(["due", "state"]), st.tuples(st.sampled_from("IJ"), names))
bounds = st.just("") | names


class StoreComparison(RuleBasedStateMachine):
    def __init__(self, memory: MemoryBackend, sqlite: SqliteBackend, processes: list[Process]) -> None:
        super().__init__()
        self.pk = sqlite.unique("P")
        self.twin, self.real = memory.process(), processes[0]
        self.reader = processes[1]

    def _in(self, pk: str) -> str:
        return f"{self.pk}/{pk}"

    def _operation(self, kind: str, sk: str, expect: int | None, body: Any, index: Any) -> Operation:
        key = Key(self._in("pq"[len(sk) % 2]), sk)
        if kind == "put":
            mine = {name: (self._in(pk), entry) for name, (pk, entry) in index.items()}
            return Put(key, body, expect, mine)
        return Delete(key, expect) if kind == "delete" else Check(key, expect or ABSENT)

    @rule(
        drawn=st.lists(
            st.tuples(st.sampled_from(["put", "put", "delete", "check"]), names, expectations, bodies, entries),
            min_size=1,
            max_size=4,
            unique_by=lambda operation: operation[1],
        )
    )
    def transact(self, drawn: list[tuple[str, str, int | None, Any, Any]]) -> None:
        operations = [self._operation(*one) for one in drawn]
        outcomes: list[dict[Key, Record | None] | None] = []
        for process in (self.twin, self.real):
            try:
                process.store.transact(operations)
                outcomes.append(None)
            except WriteConflict as conflict:
                outcomes.append(conflict.current)
        assert outcomes[0] == outcomes[1]

    @rule(sk=names, pk=st.sampled_from("pq"), fresh=st.booleans())
    def get(self, sk: str, pk: str, fresh: bool) -> None:
        key = Key(self._in(pk), sk)
        expected = self.twin.store.get(key)
        assert self.real.store.get(key, fresh=fresh) == expected
        assert self.reader.store.get(key, fresh=True) == expected

    @rule(pk=st.sampled_from("pq"), prefix=bounds, after=bounds, limit=st.integers(1, 5), reverse=st.booleans())
    def query(self, pk: str, **options: Any) -> None:
        expected = self.twin.store.query(self._in(pk), **options)
        assert self.real.store.query(self._in(pk), **options) == expected

    @rule(
        index=st.sampled_from(["due", "state"]),
        pk=st.sampled_from("IJ"),
        after=bounds,
        before=bounds,
        limit=st.integers(1, 5),
        reverse=st.booleans(),
    )
    def query_index(self, index: str, pk: str, **options: Any) -> None:
        self.real.settle()
        expected = self.twin.store.query_index(index, self._in(pk), **options)
        assert self.real.store.query_index(index, self._in(pk), **options) == expected
        assert self.reader.store.query_index(index, self._in(pk), **options) == expected

    @rule(index=st.sampled_from(["due", "state"]), pk=st.sampled_from("IJ"), most=st.integers(1, 5))
    def count_index(self, index: str, pk: str, most: int) -> None:
        self.real.settle()
        expected = self.twin.store.count_index(index, self._in(pk), most)
        assert self.real.store.count_index(index, self._in(pk), most) == expected


class QueueComparison(RuleBasedStateMachine):
    def __init__(self, memory: MemoryBackend, sqlite: SqliteBackend, processes: list[Process]) -> None:
        super().__init__()
        self.name = sqlite.unique("q")
        self.clocks = (memory.clock, sqlite.clock)
        self.queues = (memory.process().queue, processes[0].queue)
        self.received: list[tuple[Message, Message]] = []

    @rule(body=bodies, delay_s=st.integers(0, 2))
    def send(self, body: Any, delay_s: int) -> None:
        for queue in self.queues:
            queue.send(self.name, body, delay_s=delay_s)

    @rule(dead=st.booleans(), limit=st.integers(1, 3), visibility_s=st.integers(0, 2))
    def receive(self, dead: bool, limit: int, visibility_s: int) -> None:
        name = self.name + "-dlq" if dead else self.name
        twins, reals = (queue.receive(name, limit=limit, visibility_s=visibility_s) for queue in self.queues)
        assert [self._visible(message) for message in twins] == [self._visible(message) for message in reals]
        self.received += zip(twins, reals, strict=True)

    @staticmethod
    def _visible(message: Message) -> tuple[Any, ...]:
        return message.queue, message.body, message.receive_count, message.sent_ms

    @rule(data=st.data(), nack=st.booleans(), delay_s=st.integers(0, 2))
    def give_back(self, data: st.DataObject, nack: bool, delay_s: int) -> None:
        if not self.received:
            return
        pair = data.draw(st.sampled_from(self.received))
        for queue, message in zip(self.queues, pair, strict=True):
            if nack:
                queue.nack(message, delay_s=delay_s)
            else:
                queue.ack([message])

    @rule(limit=st.integers(1, 3))
    def redrive(self, limit: int) -> None:
        one, two = (queue.redrive(self.name, limit=limit) for queue in self.queues)
        assert one == two

    @rule(by_s=st.integers(0, 2))
    def hasten(self, by_s: int) -> None:
        one, two = (queue.hasten(self.name, by_s=by_s) for queue in self.queues)
        assert one == two

    @rule(ms=st.sampled_from([1, 999, 1000, 2000, -1000, -1001]))
    def wait(self, ms: int) -> None:
        for clock in self.clocks:
            clock.advance(ms)


@pytest.fixture
def pair(writer: WriterProcess) -> Iterator[Pair]:
    memory, sqlite = MemoryBackend(), SqliteBackend(writer.home)
    yield memory, sqlite, [sqlite.process(), sqlite.process()]
    memory.close()
    sqlite.close()


def test_sqlite_store_is_as_the_memory_store(pair: Pair) -> None:
    class Machine(StoreComparison):
        def __init__(self) -> None:
            super().__init__(*pair)

    run_state_machine_as_test(Machine, settings=SETTINGS)


def test_sqlite_queue_is_as_the_memory_queue(pair: Pair) -> None:
    class Machine(QueueComparison):
        def __init__(self) -> None:
            super().__init__(*pair)

    run_state_machine_as_test(Machine, settings=SETTINGS)
