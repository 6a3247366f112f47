"""A tenant that wants all workers of a pool, for as long as a call may last: others get theirs meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.ports.sandboxes import GuestCall, GuestResult
from tests.support.guest_programs import module
from tests.support.wasm import SLEEP_30_S, SPIN, command

pytestmark = [pytest.mark.slow]

LONG_S = 60.0
"""Longer than any of these tests may take: what waits for the end of such a call is not answered in time."""
MOST = 2
STRICT = pytest.mark.parametrize("strict", [False, True], ids=["shared", "strict"])

Calling = asyncio.Task[GuestResult]
Test = Callable[[Pool], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tmp_path: Path, cache: Path) -> Callable[..., None]:
    def runs(test: Test, *, strict: bool = False, most: int = MOST) -> None:
        async def all_of_it() -> None:
            pool = Pool(tmp_path, cache, most, strict=strict)
            try:
                async with asyncio.timeout(LONG_S - 10):
                    await test(pool)
            finally:
                rest = asyncio.all_tasks() - {asyncio.current_task()} - {worker.task for worker in pool._workers}
                await pool.close()
                await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run(all_of_it())

    return runs


def short(pool: Pool, tenant: str) -> Coroutine[Any, Any, GuestResult]:
    return pool.call(GuestCall(module(command(""), tenant=tenant), tenant, b"", LONG_S))


def long(pool: Pool, tenant: str, body: str = SLEEP_30_S) -> Calling:
    again = f"(loop $again {body} (br $again))"
    return asyncio.create_task(pool.call(GuestCall(module(command(again), tenant=tenant), tenant, b"", LONG_S)))


def busy(pool: Pool, tenant: str) -> int:
    return sum(worker.busy and worker.tenant == tenant for worker in pool._workers)


@asynccontextmanager
async def held(pool: Pool, tenant: str = "greedy", count: int = 20, body: str = SLEEP_30_S) -> AsyncIterator[None]:
    """All workers run calls of a tenant, which end after the test; more of them wait."""
    calls = [long(pool, tenant, body) for _ in range(count)]
    while busy(pool, tenant) < MOST:
        await asyncio.sleep(0.01)
    yield
    assert not any(each.done() for each in calls), "a call of the greedy tenant was ended for another's"
    for each in calls:
        each.cancel()


@STRICT
@pytest.mark.parametrize("body", [SPIN, SLEEP_30_S], ids=["computes", "sleeps"])
def test_who_holds_all_workers_keeps_nobody_out(run: Callable[..., None], body: str, strict: bool) -> None:
    async def test(pool: Pool) -> None:
        async with held(pool, body=body):
            for _ in range(5):
                assert (await short(pool, "modest")).category == "ok"

    run(test, strict=strict)


@STRICT
def test_a_worker_for_others_is_for_others(run: Callable[..., None], strict: bool) -> None:
    """It is kept while it may be wanted, and the greedy tenant, which has calls that wait, does not get it."""

    async def test(pool: Pool) -> None:
        async with held(pool):
            await short(pool, "modest")
            before = {worker.process.pid for worker in pool._workers}
            assert len(before) == MOST + 1
            await asyncio.sleep(0.5)
            assert busy(pool, "greedy") == MOST
            await short(pool, "modest")
            assert {worker.process.pid for worker in pool._workers} == before

    run(test, strict=strict)


@STRICT
def test_what_an_accomplice_gives_up_is_no_way_to_have_more(run: Callable[..., None], strict: bool) -> None:
    async def test(pool: Pool) -> None:
        async with held(pool):
            accomplice = long(pool, "accomplice")
            while len(pool._workers) == MOST and not accomplice.done():
                await asyncio.sleep(0.001)
            accomplice.cancel()
            await asyncio.sleep(0.5)
            assert busy(pool, "greedy") == MOST

    run(test, strict=strict)


def test_who_comes_in_the_moment_in_which_the_last_worker_is_taken(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        begun = [asyncio.create_task(short(pool, "greedy")) for _ in range(MOST)]
        await asyncio.gather(*begun)
        calls = [long(pool, "greedy") for _ in range(MOST)]
        modest = asyncio.create_task(short(pool, "modest"))
        assert (await modest).category == "ok"
        assert not any(each.done() for each in calls)
        for each in calls:
            each.cancel()

    run(test)


@STRICT
def test_two_who_are_greedy_keep_no_third_out(run: Callable[..., None], strict: bool) -> None:
    """With four workers there are two more: the second of them is there for whoever comes third."""

    async def test(pool: Pool) -> None:
        calls = [long(pool, "greedy") for _ in range(20)]
        while busy(pool, "greedy") < 4:
            await asyncio.sleep(0.01)
        calls += [long(pool, "greedy too") for _ in range(20)]
        while busy(pool, "greedy too") < 1:
            await asyncio.sleep(0.01)
        assert (await short(pool, "modest")).category == "ok"
        assert (busy(pool, "greedy"), busy(pool, "greedy too"), len(pool._workers)) == (4, 1, 6)
        for each in calls:
            each.cancel()

    run(test, strict=strict, most=4)


@STRICT
def test_there_is_an_end_to_workers(run: Callable[..., None], strict: bool) -> None:
    async def test(pool: Pool) -> None:
        async with held(pool):
            others = [long(pool, f"other {number}") for number in range(8)]
            await asyncio.sleep(1.0)
            assert len(pool._workers) <= MOST + 1
            assert sum(busy(pool, f"other {number}") for number in range(8)) == 1
            assert not any(each.done() for each in others)
            for each in others:
                each.cancel()

    run(test, strict=strict)


def test_who_is_alone_has_all_workers_and_no_more(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        async with held(pool):
            await asyncio.sleep(0.5)
            assert (len(pool._workers), busy(pool, "greedy")) == (MOST, MOST)

    run(test)


@STRICT
def test_the_pool_is_as_large_as_before_when_all_have_ended(run: Callable[..., None], strict: bool) -> None:
    async def test(pool: Pool) -> None:
        body = "(i64.store (i32.const 280) (i64.const 400000000))" + SLEEP_30_S.strip().split("\n", 1)[1]
        program = module(command(body), tenant="greedy")
        calls = [asyncio.create_task(pool.call(GuestCall(program, "greedy", b"", LONG_S))) for _ in range(8)]
        while busy(pool, "greedy") < MOST:
            await asyncio.sleep(0.01)
        assert (await short(pool, "modest")).category == "ok"
        assert {(await each).category for each in calls} == {"ok"}
        while len(pool._workers) > MOST:
            await asyncio.sleep(0.01)
        for tenant in ("modest", "greedy", "another"):
            assert (await short(pool, tenant)).category == "ok"

    run(test, strict=strict)
