"""Large requests and responses reach whom they are meant for, whichever way they go."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from hanzo_compute.adapters.sandbox.area import LEAST, SIZE
from hanzo_compute.adapters.sandbox.call import Bounds
from hanzo_compute.adapters.sandbox.frames import Invocation
from hanzo_compute.adapters.sandbox.process import Template, WorkerProcess
from tests.support.sandbox import PROFILES, Lab
from tests.support.wasm import wat

BOUNDS = Bounds(memory_mib=64, output=32 << 20)
ECHO = """(module (memory (export "memory") 400)
  (func (export "alloc") (param i32) (result i32) (i32.const 64))
  (func (export "handle") (param i32 i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))))"""
GROWS = f"""(module (memory (export "memory") 400)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "handle") (param i32 i32) (result i64)
    (memory.fill (i32.const 0) (i32.const 88) (i32.const {SIZE}))
    (i64.const {SIZE})))"""
TRAPS = """(module (memory (export "memory") 400)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "handle") (param i32 i32) (result i64) (unreachable)))"""
SIZES = [0, 1, LEAST, LEAST + 1, 1 << 20, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


class Echo:
    """A worker that echoes, with plain results or with reports."""

    def __init__(self, lab: Lab, profile: str, *, report: bool) -> None:
        binary = wat(ECHO)
        found = lab.template(binary, profile=profile, entry="reactor", bounds=BOUNDS)
        template = Template(found.artefact, profile, found.call, BOUNDS, report=report)
        self.worker = WorkerProcess()
        self.number = self.worker.prepare(template, lab.opens(binary, profile))

    def send(self, *data: bytes) -> None:
        self.worker.send([Invocation(at, self.number, 60_000, each) for at, each in enumerate(data)])

    def collect(self, count: int) -> list[bytes]:
        found = []
        for answered in self.worker.collect(count, time.monotonic() + 60):
            assert answered.report is not None, answered.error
            found.append(answered.report.output)
        return found


@pytest.fixture(params=[(profile, report) for profile in PROFILES for report in (False, True)], ids=str)
def echo(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Echo]:
    profile, report = request.param
    made = Echo(lab, profile, report=report)
    yield made
    made.worker.kill()


def test_any_size_comes_back_as_it_went(echo: Echo) -> None:
    dice = random.Random(1)
    for size in [*SIZES, *reversed(SIZES)]:
        data = dice.randbytes(size)
        echo.send(data)
        assert echo.collect(1) == [data]


def test_calls_that_are_sent_before_results_are_collected_keep_apart(echo: Echo) -> None:
    dice = random.Random(2)
    for _ in range(20):
        # Up to 1 MiB waits: neither side may fill the other's socket while it does not read its own.
        groups = [[dice.randbytes(dice.choice((8, LEAST + 1, 100_000))) for _ in range(dice.randrange(1, 4))]]
        groups += [[dice.randbytes(10) for _ in range(dice.randrange(1, 3))] for _ in range(dice.randrange(3))]
        for group in groups:
            echo.send(*group)
        assert echo.collect(sum(map(len, groups))) == [each for group in groups for each in group]


def test_a_small_request_may_have_a_large_response(lab: Lab) -> None:
    for _ in range(3):
        assert lab.run(GROWS, b"1", entry="reactor", bounds=BOUNDS).output == b"X" * SIZE
        assert lab.run(ECHO, b"2", entry="reactor", bounds=BOUNDS).output == b"2"


def test_a_large_request_may_end_in_a_trap_and_the_next_is_its_own(lab: Lab) -> None:
    for _ in range(3):
        assert lab.run(TRAPS, b"t" * SIZE, entry="reactor", bounds=BOUNDS).trap == "unreachable"
        assert lab.run(ECHO, b"n" * LEAST, entry="reactor", bounds=BOUNDS).output == b"n" * LEAST
