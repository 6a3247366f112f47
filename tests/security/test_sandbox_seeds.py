"""Seeds of hashes: who runs programs here cannot know that of a function which others call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox import interpreters
from hanzo_compute.adapters.sandbox import worker as workers
from hanzo_compute.adapters.sandbox.interpreters import PINS, Interpreter
from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram, GuestResult
from tests.integration.test_snapshot import ADDRESS, PROGRAMS
from tests.support.wasm import Runs

pytestmark = [pytest.mark.slow]

SEES = """
import json, os, random, sys
print(hash("a"), hash(b"a"), list({str(number) for number in range(50)}).index("7"))
print("dataclasses" in sys.modules, hasattr(json, "left"), os.environ.get("LEFT"), random.random(), sys.stdin.read())
json.left = os.environ["LEFT"] = "left" * 10_000
"""

Test = Callable[[Pool], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path, wasm_cache: Path) -> Callable[[Test], None]:
    """Run a test with a pool of one worker, which all tenants share."""

    def runs(test: Test) -> None:
        async def all_of_it() -> None:
            pool = Pool(tmp_path, wasm_cache, 1)
            try:
                await test(pool)
            finally:
                await pool.close()

        asyncio.run(all_of_it())

    return runs


def python(text: str, number: int = 0) -> GuestProgram:
    """A function; another one for each number."""
    return GuestProgram(
        key=f"t/{number}@{hash(text)}",
        entry="command",
        profile="fast",
        module=bytes,
        digest="",
        language="python",
        script="main.py",
        files=lambda: {"main.py": text.encode()},
        memory_mib=64,
    )


async def called(pool: Pool, program: GuestProgram, data: bytes = b"", timeout_s: float = 60.0) -> GuestResult:
    return await pool.call(GuestCall(program, program.key, data, timeout_s))


async def seen(pool: Pool, number: int, data: bytes = b"") -> tuple[str, str]:
    """What a function says of its seed, and of the rest."""
    found = await called(pool, python(SEES, number), data)
    assert (found.category, found.errors) == ("ok", b""), found.detail
    seed, rest = found.output.decode().splitlines()
    return seed, rest


async def kept(pool: Pool, number: int) -> tuple[str, str]:
    """What a function says as soon as its worker keeps an image of its interpreter."""
    for _ in range(workers.PLAIN_STARTS):
        assert (await seen(pool, number))[1].startswith("False ")
    return await seen(pool, number)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, wasm_cache: Path) -> Iterator[Runs]:
    runner = WasmRunner(tmp_path_factory.mktemp("state"), wasm_cache, 1, SystemClock())
    yield Runs(runner)
    runner.close()


def test_functions_have_seeds_of_their_own(run: Callable[[Test], None], jobs: Runs) -> None:
    """The machine's snapshot has one seed, which a job shows to whoever asks."""
    machine = jobs.run(SEES)[1].decode().splitlines()[0]

    async def test(pool: Pool) -> None:
        seeds = {number: (await kept(pool, number))[0] for number in range(3)}
        for turn in range(2):
            for number in range(3):
                seed, rest = await seen(pool, number, str(turn).encode())
                assert rest.startswith("True False None 0.")  # from a snapshot, and nothing is left of the other turn
                assert rest.endswith(f" {turn}")
                assert seeds[number] == seed, "it is started for each call"
        assert len({machine, *seeds.values()}) == 4

    run(test)


def test_a_call_that_became_a_job_has_its_own_start(jobs: Runs) -> None:
    source = {"code": SEES, "language": "python", "function": "f@1"}
    seeds = []
    for _ in range(2):
        outcome, stdout = jobs.end(jobs.runner.start(jobs.lease(source), module=None, stdin=b""))
        assert outcome.exit_code == 0
        seeds.append(stdout.decode().splitlines()[0])
    assert len({*seeds, jobs.run(SEES)[1].decode().splitlines()[0]}) == 3


def test_no_call_repeats_anothers_random_numbers(run: Callable[[Test], None]) -> None:
    async def test(pool: Pool) -> None:
        found = [(await seen(pool, 0))[1].split()[3] for _ in range(workers.PLAIN_STARTS + 4)]
        assert len(set(found)) == workers.PLAIN_STARTS + 4

    run(test)


@pytest.mark.parametrize(
    "what", ["its state", "deep recursion", "the end", "classes", "a stack", "modules of every kind"]
)
def test_a_function_sees_no_difference(run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    text, data = PROGRAMS[what]
    program = replace(python(text), args=["a", "ü"], env={"NAME": "wörld"}, output_max=1 << 20)

    async def test(pool: Pool) -> None:
        results = [await called(pool, program, data) for _ in range(workers.PLAIN_STARTS + 2)]
        monkeypatch.setattr(Interpreter, "resumes", lambda *_: False)
        results.append(await called(pool, replace(program, key="started"), data))
        told = {
            (each.category, each.exit_code, each.output, ADDRESS.sub("0x", each.errors.decode())) for each in results
        }
        assert len(told) == 1, told

    run(test)


def test_what_cannot_be_kept_is_started(run: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not as it is expected to be is never gone on from."""
    monkeypatch.setitem(interpreters.PINS, "python", replace(PINS["python"], started=64))

    async def test(pool: Pool) -> None:
        found = [await seen(pool, 0) for _ in range(workers.PLAIN_STARTS + 2)]
        assert all(rest.startswith("False ") for _, rest in found)
        assert len({seed for seed, _ in found}) == len(found)

    run(test)


def test_its_start_is_part_of_a_calls_time(run: Callable[[Test], None]) -> None:
    async def test(pool: Pool) -> None:
        await seen(pool, 1)
        for _ in range(workers.PLAIN_STARTS + 1):
            assert (await called(pool, python(SEES), timeout_s=0.005)).category == "timeout"
        assert (await kept(pool, 0))[1].startswith("True False")

    run(test)


def test_a_worker_keeps_a_few_and_starts_the_others_anew(run: Callable[[Test], None]) -> None:
    async def test(pool: Pool) -> None:
        first = await kept(pool, 0)
        for number in range(1, workers.IMAGES_KEPT):
            await kept(pool, number)
        assert (await seen(pool, 0))[0] == first[0]
        second = await seen(pool, 1)
        for number in range(100, 100 + workers.IMAGES_KEPT - 1):
            await kept(pool, number)
        assert (await seen(pool, 1))[0] == second[0]
        assert (await kept(pool, 0))[0] != first[0]

    run(test)
