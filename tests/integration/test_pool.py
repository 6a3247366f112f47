"""The pool of workers for calls that somebody waits for: real processes, real guests, on the loop of the test."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox import pool as pools
from hanzo_compute.adapters.sandbox import waiting
from hanzo_compute.adapters.sandbox.artefacts import Artefacts
from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.errors import NoCapacity, Unavailable
from hanzo_compute.ports.guests import GuestService
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram, GuestResult
from tests.support.guest_programs import module
from tests.support.wasm import SLEEP_30_S, SPIN, children, command, wat, writes

pytestmark = [pytest.mark.slow]

REACTOR = """(module {imports} (memory (export "memory") 2) {data}
  (func (export "alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "handle") (param $at i32) (param $size i32) (result i64) {body}
    (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $size)))))"""
SPINS_ON_S = f"(if (i32.eq (i32.load8_u (local.get $at)) (i32.const 115)) (then {SPIN}))"
LOG = '(import "hzc" "log" (func $log (param i32 i32 i32) (result i32)))'
KV = '(import "hzc" "kv_delete" (func $delete (param i32 i32 i64) (result i32)))'

Test = Callable[[Pool], Coroutine[Any, Any, None]]


def reactor(body: str = "", *, imports: str = "", data: str = "", **fields: Any) -> GuestProgram:
    """Answers what it was given, after it did ``body``."""
    return module(wat(REACTOR.format(body=body, imports=imports, data=data)), entry="reactor", **fields)


def code(language: str, text: str) -> GuestProgram:
    name = {"python": "main.py", "javascript": "main.js"}[language]
    return GuestProgram(
        key=f"t/{hash(text)}",
        entry="command",
        profile="fast",
        module=bytes,
        digest="",
        language=language,
        script=name,
        files=lambda: {name: text.encode()},
        memory_mib=128,
    )


def call(
    program: GuestProgram,
    data: bytes = b"hi",
    *,
    tenant: str = "t",
    timeout_s: float = 20.0,
    service: GuestService | None = None,
) -> GuestCall:
    return GuestCall(program, tenant, data, timeout_s, service)


@pytest.fixture
def run(tmp_path: Path, wasm_cache: Path) -> Callable[..., None]:
    def runs(test: Test, most: int = 2, **options: Any) -> None:
        async def all_of_it() -> None:
            before = children(os.getpid())  # of tests that ran earlier in this process
            pool = Pool(tmp_path, wasm_cache, most, **options)
            try:
                async with asyncio.timeout(250):
                    await test(pool)
            finally:
                await pool.close()
                assert children(os.getpid()) <= before, "a worker outlives its pool"

        asyncio.run(all_of_it())

    return runs


def pids(pool: Pool) -> set[int]:
    return {worker.process.pid for worker in pool._workers}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def occupied(pool: Pool) -> None:
    """Until the worker runs what it was given."""
    while not pool._workers or pool._idle or pool._turns:
        await asyncio.sleep(0.01)


async def many(pool: Pool, given: Sequence[GuestCall]) -> list[GuestResult | BaseException]:
    return await asyncio.gather(*(pool.call(each) for each in given), return_exceptions=True)


async def warm(pool: Pool, program: GuestProgram, **options: Any) -> None:
    """Until the pool knows that the program's calls are short."""
    for _ in range(40):
        assert (await pool.call(call(program, **options))).category == "ok"


def test_one_call(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        found = await pool.call(call(reactor(), b"\x00\xffbytes"))
        assert (found.category, found.output, found.errors) == ("ok", b"\x00\xffbytes", b"")
        assert found.runtime.startswith("wasmtime")

    run(test)


def test_two_hundred_at_once_travel_in_batches(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    take = Pool.take

    def counted(self: Pool, worker: Any) -> Any:
        batch = take(self, worker)
        batches.extend([len(batch)] if batch else [])
        return batch

    async def test(pool: Pool) -> None:
        program = reactor()
        await pool.call(call(program))
        monkeypatch.setattr(pools, "SHORT_S", 10.0)  # so they are, also where one was held up
        monkeypatch.setattr(Pool, "take", counted)
        given = [call(program, str(number).encode()) for number in range(200)]
        found = await many(pool, given)
        assert [each.output for each in found if isinstance(each, GuestResult)] == [each.data for each in given]
        assert sum(batches) == 200
        assert len(batches) < 50

    run(test)


def test_a_guest_that_computes_ends_at_its_deadline_and_others_go_on(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor(SPINS_ON_S)
        await warm(pool, program)
        another = reactor(data='(data (i32.const 0) "x")')
        await pool.call(call(another))
        began = time.monotonic()
        spinning = asyncio.create_task(pool.call(call(program, b"s", timeout_s=15)))
        await asyncio.sleep(0.05)
        assert (await pool.call(call(another))).category == "ok"
        assert not spinning.done()
        assert (await spinning).category == "timeout"
        assert time.monotonic() - began > 14.9

    run(test)


def test_what_has_ended_in_a_batch_does_not_wait_for_what_runs(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor(SPINS_ON_S)
        await warm(pool, program)
        tasks = [asyncio.create_task(pool.call(call(program, data, timeout_s=4))) for data in (b"a", b"b", b"s", b"c")]
        for task in tasks[:2]:
            assert (await task).category == "ok"
        assert not tasks[2].done()
        assert [(await task).category for task in tasks[2:]] == ["timeout", "ok"]

    run(test, most=1)


def test_a_guest_asleep_ends_at_its_deadline(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        began = time.monotonic()
        found = await pool.call(call(module(command(SLEEP_30_S)), timeout_s=0.5))
        assert found.category == "timeout"
        assert time.monotonic() - began < 28

    run(test)


def test_a_worker_killed_in_a_call_costs_that_call_alone(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor(SPINS_ON_S)
        await warm(pool, program)
        tasks = [asyncio.create_task(pool.call(call(program, data))) for data in (b"s", b"a", b"b")]
        await asyncio.sleep(0.3)
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGKILL)
        found = [await task for task in tasks]
        assert [each.category for each in found] == ["platform", "ok", "ok"]
        assert "SIGKILL" in found[0].detail

    run(test, most=1)


def test_a_worker_killed_while_idle_costs_nothing(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor()
        for _ in range(3):
            await pool.call(call(program))
            (worker,) = pool._workers
            os.kill(worker.process.pid, signal.SIGKILL)
            while not worker.process.dead:  # all of its threads, not the first alone
                await asyncio.sleep(0.01)
        last = await pool.call(call(program))
        assert (last.category, last.detail) == ("ok", "")

    run(test, most=1)


def test_what_cannot_be_compiled_is_the_programs_fault(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(pool: Pool) -> None:
        # Valid to who reads only its head: the body of its function is none.
        program = module(wat("(module)") + b"\x0a\x05\x01\x03\x00\xff\xff")
        first = await pool.call(call(program))
        assert first.category == "invalid_program"
        assert first.detail
        monkeypatch.delattr(Artefacts, "_run")  # it is remembered, not compiled again
        again = await pool.call(call(program))
        assert (again.category, again.detail) == (first.category, first.detail)

    run(test)


def test_with_strict_no_process_serves_two_tenants(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    served: dict[int, set[str]] = {}
    take = Pool.take

    def noted(self: Pool, worker: Any) -> Any:
        batch = take(self, worker)
        served.setdefault(worker.process.pid, set()).update(each.call.tenant for each in batch)
        return batch

    monkeypatch.setattr(Pool, "take", noted)

    async def test(pool: Pool) -> None:
        tenants = ("a", "b", "c", "d")
        programs = {tenant: reactor(tenant=tenant) for tenant in tenants}
        for tenant in tenants:  # each finds the workers of others idle
            assert (await pool.call(call(programs[tenant], tenant=tenant))).category == "ok"
        given = [call(programs[tenant], tenant=tenant) for _ in range(8) for tenant in tenants]
        found = await many(pool, given)
        assert [getattr(each, "category", each) for each in found] == ["ok"] * 32
        assert len(pool._workers) <= 2
        assert all(len(each) <= 1 for each in served.values()), served

    run(test, strict=True)


def test_with_strict_an_idle_worker_of_another_is_no_reason_to_wait(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        await pool.call(call(reactor(tenant="a"), tenant="a"))
        async with asyncio.timeout(100):
            assert (await pool.call(call(reactor(tenant="b"), tenant="b"))).category == "ok"
        assert len(pool._workers) == 2

    run(test, most=4, strict=True)


def test_tenants_take_turns(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        slow = reactor(SPINS_ON_S, tenant="greedy")
        for each in ("greedy", "modest"):  # so that both are compiled
            await pool.call(call(reactor(SPINS_ON_S, tenant=each), tenant=each))
        greedy = [asyncio.create_task(pool.call(call(slow, b"s", tenant="greedy", timeout_s=0.4))) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert (await pool.call(call(reactor(SPINS_ON_S, tenant="modest"), tenant="modest"))).category == "ok"
        assert sum(each.done() for each in greedy) < 10, "it has waited for all that another tenant had sent"
        for each in greedy:
            each.cancel()

    run(test, most=1)


def test_more_than_may_wait_are_refused(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "WAITING_MAX", 12)
    monkeypatch.setattr(pools, "TENANT_WAITING_MAX", 8)

    async def test(pool: Pool) -> None:
        program = reactor(SPINS_ON_S)
        await pool.call(call(program))
        busy = asyncio.create_task(pool.call(call(program, b"s", timeout_s=5)))
        await asyncio.sleep(0)
        await occupied(pool)
        found = await many(pool, [call(program) for _ in range(10)] + [call(program, tenant="u") for _ in range(6)])
        assert sum(isinstance(each, NoCapacity) for each in found[:10]) == 2
        assert sum(isinstance(each, NoCapacity) for each in found[10:]) == 2
        assert sum(isinstance(each, GuestResult) and each.category == "ok" for each in found) == 12
        assert (await busy).category == "timeout"

    run(test, most=1)


def test_what_has_waited_too_long_is_not_begun(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pool: Pool) -> None:
        program = reactor(SPINS_ON_S)
        await pool.call(call(program))
        monkeypatch.setattr(pools, "WAITING_S", 0.5)
        busy = asyncio.create_task(pool.call(call(program, b"s", timeout_s=5)))
        await asyncio.sleep(0)
        await occupied(pool)
        with pytest.raises(NoCapacity, match="too long"):
            await pool.call(call(program))
        assert (await busy).category == "timeout"
        assert (await pool.call(call(program))).category == "ok"

    run(test, most=1)


def test_who_goes_away_breaks_nothing(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor(SPINS_ON_S)
        await warm(pool, program)
        tasks = [asyncio.create_task(pool.call(call(program, data, timeout_s=5))) for data in (b"s", *[b"a"] * 40)]
        await asyncio.sleep(0.1)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in found[::2])
        assert {each.category for each in found[1::2] if isinstance(each, GuestResult)} == {"ok"}
        assert len(pool._workers) == 1

    run(test, most=1)


def test_closing_answers_everybody(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor(SPINS_ON_S)
        await warm(pool, program)
        tasks = [asyncio.create_task(pool.call(call(program, b"s"))) for _ in range(50)]
        await asyncio.sleep(0.2)
        fresh = asyncio.create_task(pool.call(call(reactor(data=f'(data (i32.const 0) "{time.time_ns()}")'))))
        await asyncio.sleep(0)
        began = time.monotonic()
        await pool.close()
        found = await asyncio.gather(*tasks, fresh, return_exceptions=True)
        assert [type(each) for each in found] == [Unavailable] * 51
        assert time.monotonic() - began < 60
        with pytest.raises(Unavailable):
            await pool.call(call(program))

    run(test)


def test_more_programs_than_a_worker_keeps(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        programs = [replace(reactor(), key=f"t/{number}", env={"N": str(number)}) for number in range(80)]
        for _ in range(2):
            found = await many(pool, [call(each, each.key.encode()) for each in programs])
            assert [each.output for each in found if isinstance(each, GuestResult)] == [
                each.key.encode() for each in programs
            ]
        assert len(pool._workers) == 1

    run(test, most=1)


class Kv:
    """Deletes what it is told to; fails at "!"."""

    def __init__(self) -> None:
        self.deleted: list[bytes] = []

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        key = args[0]
        assert isinstance(key, bytes)
        if key == b"!":
            raise RuntimeError("a defect of the platform's")
        self.deleted.append(key)
        return 0, b""


DELETES = "(i32.store (i32.const 0) (call $delete (local.get $at) (local.get $size) (i64.const 0)))"
SAYS_STATUS = "(local.set $at (i32.const 0)) (local.set $size (i32.const 4))"


def test_host_calls_are_answered_even_by_a_service_that_fails(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor(DELETES + SAYS_STATUS, imports=KV, granted=frozenset({"kv"}))
        services = [Kv() for _ in range(8)]
        given = [call(program, f"k{n}".encode(), service=each) for n, each in enumerate(services)]
        assert [each.output for each in await many(pool, given) if isinstance(each, GuestResult)] == [b"\0" * 4] * 8
        assert [each.deleted for each in services] == [[f"k{n}".encode()] for n in range(8)]
        before = pids(pool)
        failed = await pool.call(call(program, b"!", service=services[0]))
        assert (failed.category, failed.output) == ("ok", (-6 & 0xFFFFFFFF).to_bytes(4, "little"))
        assert (await pool.call(call(program, b"x", service=None))).output == failed.output
        assert pids(pool) == before

    run(test)


def test_every_call_of_a_batch_has_its_own_log(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        logs = "(drop (call $log (i32.const 2) (local.get $at) (local.get $size)))"
        program = reactor(logs, imports=LOG)
        await warm(pool, program)
        found = await many(pool, [call(program, f"line {number}".encode()) for number in range(60)])
        for number, each in enumerate(found):
            assert isinstance(each, GuestResult)
            assert each.errors == f"warning: line {number}\n".encode()

    run(test, most=1)


def test_what_a_guest_logs_is_kept_to_a_bound(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        flood = "(loop $again (br_if $again (i32.eqz (call $log (i32.const 1) (i32.const 0) (i32.const 8192)))))"
        found = await pool.call(call(reactor(flood, imports=LOG)))
        assert found.category == "ok"
        assert 0 < len(found.errors) <= waiting.LOGS_MAX + 10_000

    run(test)


def test_output_that_is_cut_says_so(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        twice = f"{writes('x' * 1000)} {writes('x' * 1000)}"
        found = await pool.call(call(module(command(twice), output_max=1500)))
        assert (found.category, found.limits) == ("ok", ("stdout",))
        assert len(found.output) <= 1500

    run(test)


def test_nothing_is_left_of_two_thousand_calls(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        program = reactor()
        await warm(pool, program)
        await many(pool, [call(program) for _ in range(100)])

        def held() -> tuple[int, int, int]:
            return descriptors(), len(children(os.getpid())), len(asyncio.all_tasks())

        gc.collect()  # what tests before have left
        before = held()
        for _ in range(10):
            found = await many(pool, [call(program) for _ in range(200)])
            assert {each.category for each in found if isinstance(each, GuestResult)} == {"ok"}
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while any(now > then for now, then in zip(held(), before, strict=True)):
                    await asyncio.sleep(0.05)
        assert all(now <= then for now, then in zip(held(), before, strict=True)), (held(), before)

    run(test, most=1)  # another one would come when this one is held up


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "import sys; sys.stdout.write(sys.stdin.read().upper()); print('said', file=sys.stderr)"),
        (
            "javascript",
            "const s = std.in.readAsString(); std.out.puts(s.toUpperCase());std.err.puts('said\\n')",
        ),
    ],
)
def test_source_code(run: Callable[..., None], language: str, text: str) -> None:
    async def test(pool: Pool) -> None:
        for _ in range(2):
            found = await pool.call(call(code(language, text), b"abc", timeout_s=60))
            assert (found.category, found.output, found.errors) == ("ok", b"ABC", b"said\n"), found

    run(test)
