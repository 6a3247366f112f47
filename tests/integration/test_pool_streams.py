"""Output of a pool's calls while they run: real processes, real guests."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.adapters.sandbox.process import WorkerProcess
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram, GuestResult
from tests.support.guest_programs import module
from tests.support.wasm import SLEEP_30_S, SPIN, command, wat, writes

pytestmark = [pytest.mark.slow]

WORD = '(data (i32.const 1024) "word")'
SAYS = writes("word")
ASKS = (
    '(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))'
    ' (import "hzc" "http" (func $http (param i32 i32 i32 i32) (result i64)))'
    ' (memory (export "memory") 40) (func (export "_start") {body}))'
)


def call(program: GuestProgram, timeout_s: float = 20.0, **fields: Any) -> GuestCall:
    return GuestCall(program, "t", b"", timeout_s, **fields)


class Heard:
    """Pieces as they come."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._more = asyncio.Event()

    def __call__(self, data: bytes) -> None:
        self.pieces.append(data)
        self._more.set()

    @property
    def whole(self) -> bytes:
        return b"".join(self.pieces)

    async def until(self, size: int) -> None:
        while len(self.whole) < size:
            self._more.clear()
            await self._more.wait()


@pytest.fixture
def run(tmp_path: Path, wasm_cache: Path) -> Callable[..., None]:
    def runs(test: Callable[[Pool], Coroutine[Any, Any, None]], most: int = 1) -> None:
        async def all_of_it() -> None:
            pool = Pool(tmp_path, wasm_cache, most)
            try:
                async with asyncio.timeout(250):
                    await test(pool)
            finally:
                await pool.close()

        asyncio.run(all_of_it())

    return runs


async def begun(pool: Pool, heard: Heard, given: GuestCall) -> asyncio.Task[GuestResult]:
    """A call that has spoken, and has not ended."""
    task = asyncio.create_task(pool.call(replace(given, heard=heard)))
    await heard.until(4)
    assert not task.done()
    return task


@pytest.mark.parametrize("then", [SPIN, SLEEP_30_S], ids=["computes", "sleeps"])
def test_a_piece_comes_while_the_guest_runs(run: Callable[..., None], then: str) -> None:
    """The guest would go on for longer than the test may take: it ends with its worker, after the piece was heard."""

    async def test(pool: Pool) -> None:
        heard = Heard()
        task = await begun(pool, heard, call(module(command(f"{SAYS} {then}", extra=WORD)), 300))
        (worker,) = pool._workers
        os.kill(worker.process.pid, signal.SIGKILL)
        found = await task
        assert (found.category, heard.whole, found.output) == ("platform", b"word", b"word")

    run(test)


def test_what_a_call_has_written_before_its_time_was_over_is_kept(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        heard = Heard()
        program = module(command(f"{SAYS} {writes('word', 2)} {SPIN}", extra=WORD))
        found = await pool.call(call(program, 3, heard=heard))
        assert (found.category, heard.whole, found.output, found.errors) == ("timeout", b"word", b"word", b"word")

    run(test)


def test_what_was_heard_is_what_the_result_has(run: Callable[..., None]) -> None:
    """Also over many emptyings of what a guest writes into, and without a pause at its end."""

    async def test(pool: Pool) -> None:
        loop = f"(local $n i32) (loop $again {SAYS} (local.set $n (i32.add (local.get $n) (i32.const 1)))"
        program = module(command(f"{loop} (br_if $again (i32.lt_u (local.get $n) (i32.const 100000))))", extra=WORD))
        for _ in range(3):
            heard = Heard()
            found = await pool.call(call(program, heard=heard))
            assert (found.category, found.output) == ("ok", b"word" * 100_000)
            assert heard.whole == found.output
            assert (await pool.call(call(program))).output == found.output

    run(test)


def test_what_a_program_costs_does_not_depend_on_who_listens(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        loop = f"(local $n i32) (loop $again {SAYS} (local.set $n (i32.add (local.get $n) (i32.const 1)))"
        body = f"{loop} (br_if $again (i32.lt_u (local.get $n) (i32.const 60000))))"
        program = module(command(body, extra=WORD), profile="deterministic")
        plain = await pool.call(call(program))
        live = await pool.call(call(program, heard=Heard()))
        assert plain.fuel
        assert (live.output, live.fuel) == (plain.output, plain.fuel)

    run(test)


def test_a_bound_that_was_reached_is_told(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        heard = Heard()
        found = await pool.call(call(module(command(f"{SAYS} {SAYS}", extra=WORD), output_max=6), heard=heard))
        assert (found.category, found.limits, found.output, heard.whole) == ("ok", ("stdout",), b"wordwo", b"wordwo")

    run(test)


def test_a_worker_that_is_killed_ends_its_call_and_no_call_is_heard_twice(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        heard = Heard()
        program = module(command(f"{SAYS} {SPIN}", extra=WORD))
        task = await begun(pool, heard, call(program))
        (worker,) = pool._workers
        behind = asyncio.create_task(pool.call(call(module(command(SAYS, extra=WORD)), heard=(after := Heard()))))
        os.kill(worker.process.pid, signal.SIGKILL)
        found = await task
        assert (found.category, found.output, heard.pieces) == ("platform", b"word", [b"word"])
        assert "SIGKILL" in found.detail
        assert ((await behind).category, after.pieces) == ("ok", [b"word"])

    run(test)


def test_what_a_reactor_answers_is_no_piece(run: Callable[..., None]) -> None:
    async def test(pool: Pool) -> None:
        text = """(module (memory (export "memory") 1) (data (i32.const 8) "all")
          (func (export "alloc") (param i32) (result i32) (i32.const 0))
          (func (export "handle") (param i32 i32) (result i64) (i64.const 0x800000003)))"""
        heard = Heard()
        found = await pool.call(call(module(wat(text), entry="reactor"), heard=heard))
        assert (found.output, heard.pieces) == (b"all", [])

    run(test)


class Slow:
    """Answers much, when the test lets it."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.seen: list[int] = []

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        self.seen.append(len(self.heard.whole))
        return 4 << 20, bytes(4 << 20)


def test_what_was_written_comes_before_what_is_asked_then(run: Callable[..., None]) -> None:
    """Also if each side has more to say than the socket between them holds."""

    async def test(pool: Pool) -> None:
        much = "(i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 190000))"
        write = "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"
        ask = "(drop (call $http (i32.const 64) (i32.const 1) (i32.const 64) (i32.const 0)))"
        program = module(wat(ASKS.format(body=f"{much} {write} {ask} {write} {ask}")), granted=frozenset({"http"}))
        service = Slow(heard := Heard())
        found = await pool.call(call(program, heard=heard, service=service))
        assert (found.category, len(found.output), service.seen) == ("ok", 380_000, [190_000, 380_000])

    run(test)


async def lied(pool: Pool, monkeypatch: pytest.MonkeyPatch, body: bytes, given: GuestCall) -> GuestResult:
    """A call during which the worker sends a frame of its own making, again and again."""
    results = WorkerProcess.output_of

    def forged(self: WorkerProcess, _: bytes) -> tuple[int, bytes]:
        return results(self, body)

    monkeypatch.setattr(WorkerProcess, "output_of", forged)
    return await pool.call(given)


@pytest.mark.parametrize("body", [b"", b"\3x", b"\0no level", b"\1" + b"x" * 101], ids=["none", "3", "log", "much"])
def test_a_worker_is_not_believed(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    async def test(pool: Pool) -> None:
        heard = Heard()
        program = module(command(SAYS, extra=WORD), output_max=100)
        found = await lied(pool, monkeypatch, body, call(program, heard=heard))
        assert (found.category, heard.pieces) == ("platform", [])
        monkeypatch.undo()
        assert (await pool.call(call(program, heard=heard))).category == "ok"

    run(test)


def test_output_that_nobody_asked_for_ends_it(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(pool: Pool) -> None:
        log = '(module (import "hzc" "log" (func $log (param i32 i32 i32) (result i32))) (memory (export "memory") 1)'
        body = '(func (export "_start") (drop (call $log (i32.const 1) (i32.const 0) (i32.const 4)))))'
        program = module(wat(f"{log} {body}"))
        assert (await pool.call(call(program))).category == "ok"
        found = await lied(pool, monkeypatch, b"\1forged", call(program))
        assert (found.category, found.output) == ("platform", b"")

    run(test)
