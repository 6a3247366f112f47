"""What the memory twins add to the contracts: manual commits, clocks, seeded ids."""

from __future__ import annotations

import re
import select
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from hanzo_compute.adapters.local.system import SystemClock, SystemIds
from hanzo_compute.adapters.memory import (
    ManualClock,
    MemoryCommits,
    MemoryDatabase,
    MemoryQueue,
    MemoryStore,
    SeededIds,
)
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Clock, CommitNews, Delete, Ids, Message, Put, WriteConflict, queue_wake


def test_what_is_applied_can_be_lost_until_it_is_committed() -> None:
    database = MemoryDatabase(manual=True)
    commits = MemoryCommits(database)
    store, queue = MemoryStore(commits), MemoryQueue(ManualClock(), commits=commits)
    store.transact([Put(Key("p", "kept"), {"n": 1}, index={"due": ("D", "1")})])
    queue.send("q", {"n": 1})
    kept = commits.take()
    database.commit()
    store.transact([Put(Key("p", "kept"), {"n": 2}), Put(Key("p", "new"), {})])
    store.transact([Delete(Key("p", "kept"))])
    (message,) = queue.receive("q")
    queue.ack([message])
    queue.send("q", {"n": 2})
    lost = commits.take()
    assert kept is not None
    assert lost is not None
    database.fail()
    assert commits.news() == CommitNews([kept], [lost], ["p", "D", queue_wake("q")])
    assert [(record.key.sk, record.body) for record in store.query("p")] == [("kept", {"n": 1})]
    assert [sk for sk, _ in store.query_index("due", "D")] == ["1"]
    assert [(message.body, message.receive_count) for message in queue.receive("q")] == [({"n": 1}, 1)]
    with pytest.raises(Unavailable):
        commits.wait(lost)
    commits.close()


def test_tickets_belong_to_a_process_and_cover_what_it_saw() -> None:
    database = MemoryDatabase(manual=True)
    one, two, three = (MemoryCommits(database) for _ in range(3))
    MemoryStore(one).transact([Put(Key("p", "a"), {})])
    MemoryStore(two).get(Key("p", "a"), fresh=True)
    MemoryStore(three).get(Key("p", "a"))
    assert (one.take(), two.take(), three.take()) == (1, 1, None)
    database.fail()
    assert (one.news().failed, two.news().failed, three.news().failed) == ([1], [1], [])


def test_a_ticket_taken_after_the_loss_has_failed() -> None:
    database = MemoryDatabase(manual=True)
    commits = MemoryCommits(database)
    MemoryStore(commits).transact([Put(Key("p", "a"), {})])
    database.fail()
    ticket = commits.take()
    assert ticket is not None
    assert select.select([commits.fileno()], [], [], 0)[0]
    assert list(commits.news().failed) == [ticket]
    assert commits.take() is None
    commits.close()


def test_waiting_commits() -> None:
    database = MemoryDatabase(manual=True)
    commits = MemoryCommits(database)
    MemoryStore(commits).transact([Put(Key("p", "a"), {})])
    ticket = commits.take()
    assert ticket is not None
    commits.wait(ticket)
    assert not database.dirty
    commits.close()


def test_the_manual_clock_moves_when_told() -> None:
    clock = ManualClock(1000)
    clock.sleep(0.5)
    assert (clock.now_ms(), clock.monotonic()) == (1500, 0.5)
    clock.now_ms_value = 9
    assert (clock.now_ms(), clock.monotonic()) == (9, 0.5)


@pytest.mark.parametrize("ids", [SystemIds(), SeededIds(Random(1))])
def test_ids_sort_by_time_and_are_different(ids: Ids) -> None:
    made = [ids.new("job", now_ms) for now_ms in (0, 1, 31, 32, 1_700_000_000_000, 2**48 - 1)]
    assert made == sorted(made)
    assert all(re.fullmatch(r"job-[0-9A-HJKMNP-TV-Z]{26}", name) for name in made)
    assert len({ids.new("job", 5) for _ in range(100)}) == 100
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", ids.token())
    assert len({ids.token() for _ in range(100)}) == 100


def test_seeded_ids_repeat() -> None:
    one, two = SeededIds(Random(7)), SeededIds(Random(7))
    assert [one.new("a", 5), one.token()] == [two.new("a", 5), two.token()]


def test_the_system_clock_goes_forward() -> None:
    clock: Clock = SystemClock()
    before, now = clock.monotonic(), clock.now_ms()
    clock.sleep(0.001)
    assert clock.monotonic() > before
    assert clock.now_ms() >= now


def test_nothing_is_built_on_a_write_that_was_lost() -> None:
    database = MemoryDatabase(manual=True)
    commits = MemoryCommits(database)
    store, queue = MemoryStore(commits), MemoryQueue(ManualClock(), commits=commits)
    store.transact([Put(Key("p", "a"), {})])
    database.fail()
    for call in (
        lambda: store.transact([Put(Key("p", "b"), {})]),
        lambda: store.get(Key("p", "b"), fresh=True),
        lambda: queue.send("q", {}),
        lambda: queue.receive("q"),
    ):
        with pytest.raises(Unavailable):
            call()
    ticket = commits.take()
    assert commits.news().failed == [ticket]
    store.transact([Put(Key("p", "b"), {})])
    queue.send("q", {})


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty")
def test_threads_see_a_record_whole_and_one_of_them_alone_writes_it() -> None:
    store = MemoryStore()
    key = Key("p", "a")
    store.transact([Put(key, {"n": 0}, index={"due": ("D", "1")})])

    def raise_it(_: int) -> int:
        found = store.get(key)
        assert found is not None
        assert len(store.query("p")) == len(store.query_index("due", "D")) == 1
        try:
            store.transact([Put(key, {"n": found.body["n"] + 1}, found.rev, index={"due": ("D", "1")})])
        except WriteConflict:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        wrote = sum(pool.map(raise_it, range(2000)))
    last = store.get(key)
    assert last is not None
    assert last.body == {"n": wrote}


@pytest.mark.usefixtures("hasty")
def test_threads_receive_each_message_once() -> None:
    queue = MemoryQueue(ManualClock())

    def send_and_receive(number: int) -> list[Message]:
        queue.send("q", {"n": number})
        return queue.receive("q", limit=1)

    with ThreadPoolExecutor(8) as pool:
        received = [message.body["n"] for found in pool.map(send_and_receive, range(300)) for message in found]
    assert sorted(received) == list(range(300))
