"""The contract of Commits: what is applied, durable, lost, and who is woken."""

from __future__ import annotations

import select

import pytest

from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, CommitNews, Put, WriteConflict
from tests.support.backends import Backend, Process


def news_within(process: Process, seconds: float = 20) -> CommitNews:
    """Waits at the descriptor, as the host does."""
    ready, _, _ = select.select([process.commits.fileno()], [], [], seconds)
    assert ready
    return process.commits.news()


@pytest.fixture
def key(backend: Backend) -> Key:
    return Key(backend.unique("P"), "a")


def test_there_is_no_ticket_for_nothing(process: Process) -> None:
    assert process.commits.take() is None
    assert process.commits.news() == CommitNews([], [], [])


def test_after_waiting_a_write_is_on_disk_and_reported_once(process: Process, key: Key) -> None:
    process.store.transact([Put(key, {"n": 1})])
    process.settle()
    assert process.commits.take() is None
    process.commits.news()
    news = process.commits.news()
    assert (news.durable, news.failed) == ([], [])


def test_the_ticket_of_a_write_becomes_durable_in_the_news(process: Process, key: Key) -> None:
    process.store.transact([Put(key, {"n": 1})])
    ticket = process.commits.take()
    seen: list[int] = []
    woken: list[str] = []
    while ticket is not None and ticket not in seen:
        news = news_within(process)
        assert news.failed == []
        seen += news.durable
        woken += news.woken
    while key.pk not in woken:
        woken += news_within(process).woken
    if ticket is not None:
        process.commits.wait(ticket)


def test_other_processes_are_woken_once_it_is_durable(backend: Backend, key: Key) -> None:
    writer, sleeper = backend.process(), backend.process()
    sleeper.store.get(key, fresh=True)
    sleeper.settle()
    sleeper.commits.news()
    writer.store.transact([Put(key, {"n": 1})])
    woken: list[str] = []
    while key.pk not in woken:
        woken += news_within(sleeper).woken
    found = sleeper.store.get(key)
    assert found is not None
    assert found.body == {"n": 1}


def test_a_place_in_an_index_wakes_its_partition(process: Process, key: Key) -> None:
    process.store.transact([Put(key, {}, index={"pool": (f"{key.pk}-pool", "1")})])
    process.settle()
    woken: list[str] = []
    while not woken:
        woken += news_within(process).woken
    assert set(woken) == {key.pk, f"{key.pk}-pool"}


def test_nobody_is_woken_by_a_refused_transaction(process: Process, key: Key) -> None:
    with pytest.raises(WriteConflict):
        process.store.transact([Put(key, {}, expect=7)])
    process.store.transact([Put(Key(key.pk + "-other", "a"), {}, expect=ABSENT)])
    woken: list[str] = []
    while not woken:
        woken += news_within(process).woken
    assert key.pk not in woken


def test_the_descriptor_is_quiet_when_all_is_said(process: Process, key: Key) -> None:
    process.store.transact([Put(key, {"n": 1})])
    process.settle()
    while key.pk not in news_within(process).woken:
        pass
    assert select.select([process.commits.fileno()], [], [], 0)[0] == []
