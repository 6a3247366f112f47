"""Parked requests and tickets, without HTTP around them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hanzo_compute.errors import Unavailable
from hanzo_compute_host.park import WAKES_AT_ONCE, Journal, Parking
from tests.support.host import FakeCommits, until


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_a_wake_before_the_wait_counts() -> None:
    async def test() -> None:
        parking = Parking()
        with parking.park(["A", "B"]) as park:
            parking.wake(["B"])
            assert await park.wait(10)
        assert len(parking) == 0

    run(test)


def test_a_wake_of_something_else_does_not() -> None:
    async def test() -> None:
        parking = Parking()
        with parking.park(["A"]) as park:
            parking.wake(["B"])
            assert not await park.wait(0.01)

    run(test)


def test_one_wake_reaches_all_who_wait_for_it() -> None:
    async def test() -> None:
        parking = Parking()
        parks = [parking.park(["A"]) for _ in range(100)]
        waits = [asyncio.create_task(park.wait(10)) for park in parks]
        parking.wake(["A"])
        assert await asyncio.gather(*waits) == [True] * 100
        for park in parks:
            park.close()
        assert len(parking) == 0

    run(test)


def test_who_is_about_to_be_woken_stands_in_line_once() -> None:
    async def test() -> None:
        parking = Parking()
        parks = [parking.park(["A", "B"]) for _ in range(100)]
        for _ in range(50):
            parking.wake(["A", "B"])
        assert len(parking._due) == 100 - WAKES_AT_ONCE
        assert await asyncio.gather(*(park.wait(10) for park in parks)) == [True] * 100
        assert not parking._due
        for park in parks:
            park.close()

    run(test)


def test_a_closed_parking_lets_nobody_wait() -> None:
    async def test() -> None:
        parking = Parking()
        with parking.park(["A"]) as park:
            parking.close()
            assert not await park.wait(10)
        with parking.park(["A"]) as park:
            assert not await park.wait(10)

    run(test)


def test_a_wait_ends_with_the_task_it_was_given() -> None:
    async def test() -> None:
        parking = Parking()

        async def gone() -> None:
            return

        with parking.park(["A"]) as park:
            assert not await park.wait(10, asyncio.create_task(gone()))

    run(test)


def test_parked_requests_leave_nothing_behind() -> None:
    async def test() -> None:
        parking = Parking()
        for number in range(1000):
            with parking.park([f"JOB#{number}"]):
                pass
        assert parking._waiting == {}

    run(test)


def test_tickets_are_settled_one_by_one() -> None:
    async def test() -> None:
        commits = FakeCommits()
        journal = Journal(commits, Parking())
        journal.start()
        assert journal.take() is None
        commits.write()
        first = journal.take()
        assert first is not None
        assert not first.done()
        commits.commit()
        await asyncio.wait_for(first, 60)
        commits.write()
        second = journal.take()
        assert second is not None
        commits.fail()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(second, 60)
        journal.stop()
        commits.close()

    run(test)


def test_what_is_open_at_the_end_is_unavailable() -> None:
    async def test() -> None:
        commits = FakeCommits()
        journal = Journal(commits, Parking())
        journal.start()
        commits.write()
        future = journal.take()
        assert future is not None
        journal.stop()
        with pytest.raises(Unavailable):
            await future
        commits.close()

    run(test)


def test_news_that_a_call_took_off_the_descriptor_is_still_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute_host.park.LOOK_S", 0.01)

    class Silent(FakeCommits):
        """Its descriptor never rings, like that of a client whose writer is being restarted."""

        def commit(self, *woken: str) -> None:
            super().commit(*woken)
            self._news, kept = ([], [], []), self._news
            super().news()
            self._news = kept

    async def test() -> None:
        commits, parking = Silent(), Parking()
        journal = Journal(commits, parking)
        journal.start()
        with parking.park(["A"]) as park:
            commits.commit("A")
            await until(park._woken.done)
        journal.stop()
        commits.close()

    run(test)


def test_thousands_that_are_woken_leave_others_their_turn() -> None:
    async def test() -> None:
        parking = Parking()
        parks = [parking.park(["A"]) for _ in range(2_000)]
        left: list[int] = []

        async def other() -> None:
            while True:
                await asyncio.sleep(0)
                left.append(sum(not park.woken for park in parks))

        beside = asyncio.create_task(other())
        parking.wake(["A"])
        parking.wake(["A"])
        assert await asyncio.gather(*(park.wait(10) for park in parks)) == [True] * 2_000
        beside.cancel()
        steps = [before - after for before, after in itertools.pairwise(left)]
        assert max(steps) <= WAKES_AT_ONCE
        for park in parks:
            park.close()
        assert len(parking) == 0

    run(test)
