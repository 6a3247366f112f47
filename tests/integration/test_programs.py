"""Programs that a pool keeps: which ones, how much of their files, and what deterministic ones grow from."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox import programs as rooms
from hanzo_compute.adapters.sandbox.artefacts import COMPILE_S, INTERPRETER_S, Artefacts
from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.adapters.sandbox.programs import Programs
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram
from tests.support.guest_programs import module
from tests.support.wasm import command, wat

pytestmark = [pytest.mark.slow]

RANDOM = """(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 4096))
  (func (export "handle") (param i32 i32) (result i64)
    (drop (call $random (i32.const 0) (i32.const 16)))
    (i64.const 16)))"""


@pytest.fixture
def held(tmp_path: Path, wasm_cache: Path) -> Callable[..., None]:
    def runs(test: Callable[[Programs], Coroutine[Any, Any, None]]) -> None:
        async def all_of_it() -> None:
            programs = Programs(tmp_path, wasm_cache)
            try:
                await test(programs)
            finally:
                programs.close()

        asyncio.run(all_of_it())
        assert not list((tmp_path / "functions").iterdir())

    return runs


def program(name: str, size: int = 3) -> GuestProgram:
    return replace(module(command("")), key=f"t/{name}", files=lambda: {"data": b"x" * size})


def laid_out(home: Path) -> list[int]:
    gc.collect()
    return sorted(path.stat().st_size for path in (home / "functions").glob("*/*/data"))


def test_the_programs_called_last_are_kept(
    held: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "KEPT", 3)

    async def test(programs: Programs) -> None:
        first = await programs.get(program("first", 1))
        for number in range(2, 5):
            await programs.get(program(f"other-{number}", number))
            assert await programs.get(program("first")) is first
        assert laid_out(tmp_path) == [1, 3, 4]
        for number in range(5, 8):
            await programs.get(program(f"other-{number}", number))
        assert laid_out(tmp_path) == [1, 5, 6, 7], "who still has a program has its files"
        del first
        assert laid_out(tmp_path) == [5, 6, 7]
        assert (await programs.get(program("first", 9))).files_size == 9

    held(test)


def test_files_are_kept_to_a_bound(held: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "FILES_KEPT", 100)

    async def test(programs: Programs) -> None:
        for number in range(10):
            await programs.get(program(f"{number}", 40 + number))
        assert laid_out(tmp_path) == [48, 49]
        await programs.get(program("huge", 1000))
        assert laid_out(tmp_path) == [1000]
        await programs.get(program("small", 1))
        assert laid_out(tmp_path) == [1]

    held(test)


def test_what_cannot_be_laid_out_leaves_nothing(held: Callable[..., None], tmp_path: Path) -> None:
    async def test(programs: Programs) -> None:
        clash = replace(program("clash"), files=lambda: {"a": b"x", "a/b": b"x"})
        for _ in range(2):
            with pytest.raises(OSError, match="a"):
                await programs.get(clash)
        assert not list((tmp_path / "functions").glob("*/*"))

    held(test)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path, wasm_cache: Path) -> None:
    text = f"""
import pathlib, time
from hanzo_compute.adapters.sandbox.programs import Programs
programs = Programs(pathlib.Path({str(tmp_path)!r}), pathlib.Path({str(wasm_cache)!r}))
print(programs._root.name, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            theirs = process.stdout.readline().strip()
            old = tmp_path / "functions" / ("a" * 64)
            old.mkdir()
            ours = Programs(tmp_path, wasm_cache)
            assert {path.name for path in (tmp_path / "functions").iterdir()} == {theirs, ours._root.name}
        finally:
            os.kill(process.pid, signal.SIGKILL)
    ours.close()
    assert [path.name for path in (tmp_path / "functions").iterdir()] == [theirs]
    Programs(tmp_path, wasm_cache).close()
    assert not list((tmp_path / "functions").iterdir())


def test_a_deterministic_call_grows_from_what_runs_and_what_it_reads(tmp_path: Path, wasm_cache: Path) -> None:
    made = module(wat(RANDOM), entry="reactor", profile="deterministic")
    named = replace(made, key="another/name@7")
    others = [
        replace(made, key="t/env", env={"A": "1"}),
        replace(made, key="t/args", args=("x",)),
        replace(made, key="t/files", files=lambda: {"f": b"1"}),
        replace(made, key="t/other-files", files=lambda: {"f": b"2"}),
    ]

    async def answers(state: Path) -> list[bytes]:
        pool = Pool(state, wasm_cache, 1)
        try:
            given = [(made, b"a"), (made, b"b"), *((other, b"a") for other in others), (named, b"a"), (made, b"a")]
            found = [await pool.call(GuestCall(each, "t", data, 20.0)) for each, data in given]
            assert {each.category for each in found} == {"ok"}
            return [each.output for each in found]
        finally:
            await pool.close()

    here, there = asyncio.run(answers(tmp_path / "here")), asyncio.run(answers(tmp_path / "there"))
    assert here == there
    assert len({*here[:6]}) == 6
    assert here[6] == here[7] == here[0]


def test_an_interpreter_has_longer_to_be_compiled(held: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its snapshot is two compilations, of 6 MB each; and one that took too long would be remembered as bad."""
    given: list[float] = []
    get = Artefacts.get

    def noted(self: Artefacts, *args: Any, timeout_s: float, **options: Any) -> int:
        given.append(timeout_s)
        return get(self, *args, timeout_s=timeout_s, **options)

    monkeypatch.setattr(Artefacts, "get", noted)

    async def test(programs: Programs) -> None:
        await programs.get(program("module"))
        await programs.get(replace(program("script"), language="javascript", script="main.js"))

    held(test)
    assert given == [COMPILE_S, INTERPRETER_S]
