"""Guests that misuse the functions of their host: without leave, without measure, with arguments that are none."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

import pytest

from hanzo_compute.adapters.sandbox import hostcalls
from hanzo_compute.adapters.sandbox.call import Bounds
from hanzo_compute.adapters.sandbox.hostcalls import DENIED, FUNCTIONS, INVALID, LIMIT, NOT_FOUND, UNAVAILABLE
from hanzo_compute.adapters.sandbox.shim import CONTROL_FD
from tests.support.sandbox import PROFILES, Lab
from tests.support.wasi_script import END, Script, hzc_params, module, results

CAPABILITIES = sorted({shape.capability for shape in FUNCTIONS.values() if shape.capability})
ASKING = [name for name, shape in FUNCTIONS.items() if shape.capability]


class Answers:
    """A service that notes what it is asked, and gives what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[bytes | int]]] = []
        self.gives: tuple[int, bytes] = (NOT_FOUND, b"")

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        self.asked.append((name, args))
        return self.gives


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("cache"))
    yield lab
    lab.close()


@pytest.fixture
def lab(made: Lab) -> Lab:
    made.service = Answers()
    made.output = None
    return made


def answers(lab: Lab) -> Answers:
    assert isinstance(lab.service, Answers)
    return lab.service


def arguments(name: str, script: Script) -> list[int]:
    """Arguments that are right in their form."""
    args = []
    for kind in FUNCTIONS[name].params:
        if kind == "bytes":
            args += [script.blob(b"key"), 3]
        elif kind == "buffer":
            args += [script.room(64), 64]
        else:
            args.append(script.room(8) if kind == "out" else 0)
    return args


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ASKING)
def test_without_leave_all_is_denied_and_nobody_is_asked(lab: Lab, profile: str, name: str) -> None:
    others = [each for each in CAPABILITIES if each != FUNCTIONS[name].capability]
    script = Script()
    script.add(f"hzc.{name}", *arguments(name, script))
    wanted = (
        name.encode()
        + b"\0"
        + b"".join(
            (struct.pack("<I", 3) + b"key") if kind == "bytes" else struct.pack("<Iq", 8, 0)
            for kind in FUNCTIONS[name].params
            if kind != "out"
        )
    )
    room = script.room(16)
    script.write(CONTROL_FD, wanted).add("fd_read", CONTROL_FD, script.iovec((room, 8)), 1, script.room(4))
    script.add("load", room)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, granted=others)
    found = results(report.output)
    assert [_signed32(found[0]), *found[1:]] == [DENIED, 0, 0, DENIED]
    assert answers(lab).asked == []
    assert report.counters[f"hzc.{name}"] == 2


def _signed32(value: int) -> int:
    """What an i32 that was widened without its sign says."""
    return value - 2**32 if 2**31 <= value < 2**32 else value


@pytest.mark.parametrize("profile", PROFILES)
def test_a_flood_ends_at_its_number(lab: Lab, profile: str) -> None:
    script = Script()
    key, out = script.blob(b"key"), script.room(8)
    for _ in range(150):
        script.add("hzc.kv_get", key, 3, out)
    bounds = Bounds(memory_mib=4, host_calls=100)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, granted=["kv"], bounds=bounds)
    assert results(report.output) == [NOT_FOUND] * 100 + [LIMIT] * 50
    assert len(answers(lab).asked) == 100
    assert report.limits == ["host_calls"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_flood_ends_at_its_bytes_in_and_out(lab: Lab, profile: str) -> None:
    bounds = Bounds(memory_mib=4, host_bytes=100_000)
    script = Script()
    for _ in range(20):
        script.add("hzc.output", script.blob(b"o"), 1, 0, 9_999)
    answers(lab).gives = (7, b"")
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, granted=["outputs"], bounds=bounds)
    assert results(report.output) == [7] * 10 + [LIMIT] * 10
    assert report.limits == ["host_bytes"]
    script = Script()
    for _ in range(5):
        script.add("hzc.secret", script.blob(b"s"), 1)
    answers(lab).gives = (0, b"x" * 30_000)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, granted=["secrets"], bounds=bounds)
    assert results(report.output) == [30_000] * 3 + [LIMIT] * 2
    assert report.limits == ["host_bytes"]


def test_an_endless_flood_is_interrupted(lab: Lab) -> None:
    text = """(module (import "hzc" "log" (func $log (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (loop $l (drop (call $log (i32.const 0) (i32.const 0) (i32.const 10))) (br $l))))"""
    heard: list[bytes] = []
    lab.output = lambda _, data: heard.append(data)
    report = lab.run(text, timeout_s=1, bounds=Bounds(memory_mib=4, host_calls=500))
    assert (report.trap, report.limits) == ("interrupt", ["host_calls"])
    assert len(heard) == 500


SMALL = Bounds(memory_mib=4)
WILD = (0, 1, 2, 8, 511, 512, 513, END - 1, END, END + 1, 2**31 - 1, 2**31, 2**32 - 1)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_wild_arguments_are_refused_with_a_status(lab: Lab, profile: str, name: str) -> None:
    dice = random.Random(name)
    kinds = hzc_params(name).split()
    lab.output = lambda *_: None
    for _ in range(60):
        answers(lab).gives = dice.choice([(5, b"x" * 16), (0, b"y" * 100), (NOT_FOUND, b""), (2**40, b"z" * 8)])
        script = Script()
        for _ in range(3):
            script.add(f"hzc.{name}", *[dice.choice(WILD if kind == "i32" else (0, -1, 2**63, 5)) for kind in kinds])
            script.add("hzc.take", dice.choice(WILD), dice.choice(WILD))
        report = lab.run(
            module(),
            script.request(),
            entry="reactor",
            profile=profile,
            granted=CAPABILITIES,
            bounds=Bounds(memory_mib=4),
        )
        assert report.kind == "exit" or report.trap in ("memory_out_of_bounds", "unreachable")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_buffer_at_address_0_is_a_buffer(lab: Lab, profile: str) -> None:
    script = Script().add("hzc.random", 0, 8).add("load", 0)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile)
    found = results(report.output)
    assert found[0] == 0
    assert found[1] != 0


@pytest.mark.parametrize("profile", PROFILES)
def test_more_than_the_budget_is_not_even_copied(lab: Lab, profile: str) -> None:
    bounds = Bounds(memory_mib=4096)
    script = Script().add("grow", 60_000)
    script.add("hzc.kv_put", 0, 2**31, 0, 2**31 - 1, 0)
    script.add("hzc.log", 0, 0, 2**31)
    script.add("hzc.output", 0, 65536, 0, 3 * 2**30)
    report = lab.run(
        module(), script.request(), entry="reactor", profile=profile, granted=["kv", "outputs"], bounds=bounds
    )
    found = results(report.output)
    if found[0] >= 0:  # the machine has the address space
        assert [_signed32(each) for each in found[1:]] == [INVALID] * 3
    assert answers(lab).asked == []


@pytest.mark.parametrize("profile", PROFILES)
def test_keys_and_values_have_their_bounds_before_anybody_is_asked(lab: Lab, profile: str) -> None:
    script = Script()
    key, out = script.blob(b"k" * 520), script.room(8)
    script.add("hzc.kv_get", key, 0, out).add("hzc.kv_get", key, 513, out)
    script.add("hzc.kv_put", key, 3, 0, (256 << 10) + 1, 0).add("hzc.kv_delete", key, 0, 0)
    script.add("hzc.log", 4, key, 3).add("hzc.log", -1, key, 3).add("hzc.log", 0, 0, 8193)
    script.add("hzc.random", key, 65537)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, granted=["kv"])
    assert {_signed32(each) for each in results(report.output)} == {INVALID}
    assert answers(lab).asked == []


def test_a_log_cannot_speak_for_others(lab: Lab) -> None:
    heard: list[tuple[int, bytes]] = []
    lab.output = lambda stream, data: heard.append((stream, data))
    script = Script()
    for text in (b"a\0b", b"error\0forged", b"\xff\xfe", b""):
        script.add("hzc.log", 1, script.blob(text), len(text))
    lab.run(module(), script.request(), entry="reactor")
    assert heard == [
        (0, b"info\0a\0b"),
        (0, b"info\0error\0forged"),
        (0, b"info\0\\xff\\xfe"),
        (0, b"info\0"),
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_without_a_service_nothing_answers(made: Lab, profile: str) -> None:
    made.service = None
    script = Script()
    for name in ASKING:
        script.add(f"hzc.{name}", *arguments(name, script))
    report = made.run(module(), script.request(), entry="reactor", profile=profile, granted=CAPABILITIES)
    assert {_signed32(each) for each in results(report.output)} == {UNAVAILABLE}


@pytest.mark.parametrize(
    ("name", "args", "fits"),
    [
        ("kv_get", [b"key"], True),
        ("kv_put", [b"key", b"value", 1], True),
        ("input_read", [5, 64], True),
        ("kv_get", [], False),
        ("kv_get", [5], False),
        ("kv_put", [b"key", b"value"], False),
        ("kv_put", [b"key", b"value", b"1"], False),
        ("take", [5], False),
        ("now", [], False),
        ("exec", [b"sh"], False),
        ("__class__", [], False),
    ],
)
def test_what_a_worker_may_pass_on(name: str, args: list[bytes | int], fits: bool) -> None:
    assert hostcalls.fits(name, args) == fits
