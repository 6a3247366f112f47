"""Guests that call WASI as nobody should: wild pointers, stolen descriptors, early exits, polls without measure."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox.call import Bounds, Folder
from hanzo_compute.adapters.sandbox.poll import MOST
from hanzo_compute.adapters.sandbox.shim import CONTROL_FD, RANDOM_MOST
from tests.support.sandbox import PROFILES, Lab
from tests.support.wasi_script import BADF, END, FAULT, INVAL, NOSPC, SUCCESS, WASI, Script, module, results
from tests.support.wasm import wat

BOUNDS = Bounds(memory_mib=4, output=1 << 20)
TRAPS = {"memory_out_of_bounds", "host_error", "unreachable"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


POINTERS = (0, 1, END - 8, END - 4, END - 1, END, END + 1, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)
SIZES = (0, 1, 7, 8, 65536, END, 2**28, 2**29, 2**31 - 1, 2**31, 2**32 - 1)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", WASI)
def test_wild_arguments_give_an_errno_or_a_trap_of_the_guest(lab: Lab, profile: str, name: str) -> None:
    """Whatever is asked, the worker has no error of its own, and goes on (:meth:`Lab.run` sees to both)."""
    dice = random.Random(name)
    kinds = WASI[name].split()
    for _ in range(60):
        script = Script()
        for _ in range(3):
            args = [dice.choice((0, 1, 2, 3, CONTROL_FD, *POINTERS, *SIZES, -1)) for _ in kinds]
            # The first is a descriptor nearly everywhere.
            if kinds and dice.random() < 0.7:
                args[0] = dice.choice((0, 1, 2, 3, CONTROL_FD))
            script.add(name, *args)
        timeout_s = 1 if name == "poll_oneoff" else 200  # only that one waits
        report = lab.run(
            module(),
            script.request(),
            entry="reactor",
            profile=profile,
            bounds=BOUNDS,
            timeout_s=timeout_s,
            granted=["kv"],
        )
        if report.kind == "trap":
            assert report.trap in TRAPS or (name == "poll_oneoff" and report.trap == "interrupt"), report
            assert report.detail
        elif name not in ("proc_exit", "random_get"):  # the one gives nothing, the other writes over what was given
            assert all(0 <= errno <= 76 for errno in results(report.output))


def ends(lab: Lab, script: Script, profile: str = "fast", bounds: Bounds = BOUNDS) -> list[int] | str | None:
    """What the operations gave, or the name of the trap."""
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, bounds=bounds)
    return results(report.output) if report.kind == "exit" else report.trap


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("fd", [1, 2])
def test_iovecs_at_the_edge_of_memory(lab: Lab, profile: str, fd: int) -> None:
    good = Script()
    ret = good.room(4)
    good.add("fd_write", fd, good.iovec((END - 5, 5), (END, 0)), 2, ret).add("load", ret)
    found = ends(lab, good, profile)
    assert isinstance(found, list)
    assert (found[0], found[1] & 0xFFFFFFFF) == (SUCCESS, 5)
    for pieces in ([(END - 5, 6)], [(END, 1)], [(2**32 - 1, 2)], [(0, 100_000), (2**31, 100_000)], [(65536, END)]):
        script = Script()
        script.add("fd_write", fd, script.iovec(*pieces), len(pieces), script.room(4))
        assert ends(lab, script, profile) == "memory_out_of_bounds", pieces
    for at, count in ((END - 8, 2), (END - 4, 1), (END, 1), (0, 2**31), (0, 2**32 - 1), (2**32 - 8, 2)):
        assert ends(lab, Script().add("fd_write", fd, at, count, 0), profile) == "memory_out_of_bounds"
    for ret in (END - 3, END, 2**31, 2**32 - 1):
        script = Script()
        assert ends(lab, script.add("fd_write", fd, script.iovec((0, 1)), 1, ret), profile) == "memory_out_of_bounds"


@pytest.mark.parametrize("profile", PROFILES)
def test_iovecs_that_overlap_each_other_and_themselves(lab: Lab, profile: str) -> None:
    script = Script()
    data = script.blob(b"abcdefgh")
    script.add("fd_write", 1, script.iovec((data, 8), (data + 4, 4), (data, 4), (data, 8)), 4, data + 2)
    script.add("load", data)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, bounds=BOUNDS)
    assert report.stdout == b"abcdefghefghabcdabcdefgh"
    assert results(report.output)[1].to_bytes(8, "little", signed=True) == b"ab\x18\0\0\0gh"
    # The array of iovecs writes itself, and is where the count goes.
    script = Script()
    array = script.iovec((0, 0), (0, 0))
    script.add("store", array, array | 16 << 32).add("fd_write", 1, array, 1, array).add("load", array)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, bounds=BOUNDS)
    assert report.stdout == struct.pack("<IIII", array, 16, 0, 0)
    assert results(report.output)[2] & 0xFFFFFFFF == 16


@pytest.mark.parametrize("profile", PROFILES)
def test_the_control_descriptor_takes_no_more_than_it_should(lab: Lab, profile: str) -> None:
    cases = {
        "too many pieces": (Script().add("fd_write", CONTROL_FD, 0, 1025, 8), INVAL),
        "2^31 pieces": (Script().add("fd_write", CONTROL_FD, 0, 2**31, 8), INVAL),
        "an array that is not there": (Script().add("fd_write", CONTROL_FD, END, 1, 8), FAULT),
        "no pieces": (Script().add("fd_write", CONTROL_FD, 0, 0, 8), 9),
        "too many to read": (Script().add("fd_read", CONTROL_FD, 0, 1025, 8), INVAL),
        "2^31 to read": (Script().add("fd_read", CONTROL_FD, 0, 2**31, 8), INVAL),
        "nothing to read": (Script().add("fd_read", CONTROL_FD, 0, 0, 8), SUCCESS),
        "to read into nowhere": (Script().add("fd_read", CONTROL_FD, END, 1, 8), FAULT),
        "count to nowhere": (Script().add("fd_read", CONTROL_FD, 0, 0, END), FAULT),
        "closing it": (Script().add("fd_close", CONTROL_FD), SUCCESS),
        "giving it to stdout": (Script().add("fd_renumber", CONTROL_FD, 1), BADF),
        "making stdout it": (Script().add("fd_renumber", 1, CONTROL_FD), BADF),
        "seeking": (Script().add("fd_seek", CONTROL_FD, 0, 0, 8), BADF),
        "pwrite": (Script().add("fd_pwrite", CONTROL_FD, 0, 0, 0, 8), BADF),
    }
    for what, (script, errno) in cases.items():
        assert ends(lab, script, profile) == [errno], what
    amplified = Script()
    amplified.add("fd_write", CONTROL_FD, amplified.iovec(*[(0, END)] * 1000), 1000, 8)
    assert ends(lab, amplified, profile) == [INVAL]
    for junk in (b"", b"now", b"\0", b"now\0x", b"kv_get\0\xff\xff\xff\xff", b"\xff\0", b"__class__\0", b"log\0" * 99):
        assert ends(lab, Script().write(CONTROL_FD, junk), profile) == [9], junk


@pytest.mark.parametrize("profile", PROFILES)
def test_streams_can_be_moved_and_closed_and_stay_what_they_are(lab: Lab, profile: str) -> None:
    script = Script()
    script.write(1, b"one ").add("fd_renumber", 1, 2).write(2, b"two ").write(1, b"none").write(2, b"three ")
    script.add("fd_renumber", 2, 0).write(0, b"four").write(2, b"none")
    script.add("fd_close", 0).write(0, b"none").add("fd_close", 0).add("fd_close", 1).add("fd_close", 2)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, bounds=BOUNDS)
    assert results(report.output) == [0, 0, 0, BADF, 0, 0, 0, BADF, 0, BADF, BADF, BADF, BADF]
    assert (report.stdout, report.stderr) == (b"one two three four", b"")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_bound_of_output_is_not_escaped_by_renumbering(lab: Lab, profile: str) -> None:
    script = Script().write(1, b"x" * 60).add("fd_renumber", 1, 2).write(2, b"y" * 60).add("fd_renumber", 2, 0)
    script.write(0, b"z" * 60).write(0, b"z")
    bounds = Bounds(memory_mib=4, output=100)
    report = lab.run(module(), script.request(), entry="reactor", profile=profile, bounds=bounds)
    assert report.stdout == b"x" * 60 + b"y" * 40
    assert results(report.output) == [0, 0, 0, 0, NOSPC, NOSPC]
    assert (report.stderr, report.limits) == (b"", ["stdout"])


@pytest.mark.parametrize("profile", PROFILES)
def test_standard_input_can_be_given_away(lab: Lab, profile: str) -> None:
    script = Script().add("fd_renumber", 0, 1)
    room = script.room(16)
    script.write(1, b"into stdin").add("fd_read", 1, script.iovec((room, 8)), 1, script.room(4)).add("load", room)
    request = script.request()
    report = lab.run(module(), request, entry="reactor", profile=profile, bounds=BOUNDS)
    found = results(report.output)
    assert found[1] != SUCCESS
    assert (found[2], found[3].to_bytes(8, "little", signed=True)) == (SUCCESS, request[:8])
    assert report.stdout == b""


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("code", [0, 7, 126, 255, 2**32 - 1])
def test_exit_from_anywhere(lab: Lab, profile: str, code: int) -> None:
    exit_ = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
    rest = (
        '(memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0))'
        '(func (export "handle") (param i32 i32) (result i64) unreachable)'
    )
    goes = f"(call $exit (i32.const {code}))"
    early = lab.run(f'(module {exit_} {rest} (func (export "_initialize") {goes}))', entry="reactor", profile=profile)
    assert (early.kind, early.exit_code, early.output) == ("exit", code, b"")
    alloc = rest.replace("(result i32) (i32.const 0)", f"(result i32) {goes} (i32.const 0)")
    report = lab.run(f"(module {exit_} {alloc})", entry="reactor", profile=profile)
    assert (report.kind, report.exit_code) == ("exit", code)
    deep = f"""(module {exit_} (memory (export "memory") 1)
      (func $f (param i32)
        (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))) {goes})
      (func (export "_start") (call $f (i32.const 2000))))"""
    assert lab.run(deep, profile=profile).exit_code == code


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["proc_exit", "fd_write", "random_get", "clock_time_get", "poll_oneoff", "args_get"])
def test_a_start_function_that_calls_wasi_ends_in_a_trap(lab: Lab, profile: str, name: str) -> None:
    """At that time its memory is nobody's yet."""
    params = WASI[name].split()
    given = " ".join(f"({kind}.const 0)" for kind in params)
    result, drop = ("", "") if name == "proc_exit" else ("(result i32)", "drop")
    report = lab.run(
        f"""(module (import "wasi_snapshot_preview1" "{name}" (func $f (param {WASI[name]}) {result}))
          (memory (export "memory") 1) (func $start (call $f {given}) {drop}) (start $start)
          (func (export "_start")))""",
        profile=profile,
    )
    assert report.kind == "trap" or name == "args_get"
    assert report.exit_code in (None, 0)


def test_a_start_function_whose_host_call_fails_is_no_invalid_program(lab: Lab) -> None:
    """It was compiled and linked: another run may go otherwise."""
    report = lab.run(
        """(module (import "wasi_snapshot_preview1" "fd_seek" (func $f (param i32 i64 i32 i32) (result i32)))
          (memory (export "memory") 1) (start $start)
          (func $start (drop (call $f (i32.const 0) (i64.const 0) (i32.const 999) (i32.const 0))))
          (func (export "_start")))"""
    )
    assert (report.kind, report.trap) == ("trap", "host_error")
    assert "Whence" in report.detail


NO_MEMORY = {
    "none": "",
    "hidden": "(memory 1)",
    "by another name": '(memory (export "mem") 1)',
    "a function": '(func (export "memory"))',
    "a table": '(table (export "memory") 4 funcref)',
    "a global": '(global (export "memory") i64 (i64.const -1))',
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("what", NO_MEMORY)
@pytest.mark.parametrize("name", [None, "sched_yield", "fd_write", "fd_readdir", "random_get", "proc_exit", "fd_close"])
def test_a_guest_without_a_memory_harms_itself_alone(lab: Lab, profile: str, what: str, name: str | None) -> None:
    if name is None:
        text = f'(module {NO_MEMORY[what]} (func (export "_start")))'
    else:
        given = " ".join(f"({kind}.const 3)" for kind in WASI[name].split())
        result, drop = ("", "") if name == "proc_exit" else ("(result i32)", "drop")
        text = f"""(module (import "wasi_snapshot_preview1" "{name}" (func $f (param {WASI[name]}) {result}))
          {NO_MEMORY[what]} (func (export "_start") (call $f {given}) {drop}))"""
    report = lab.run(text, profile=profile)
    assert report.kind in ("exit", "trap")
    assert report.memory_bytes == 0
    if name == "proc_exit":
        assert report.exit_code == 3


@pytest.mark.parametrize("what", NO_MEMORY)
def test_the_same_with_host_functions_alone(lab: Lab, what: str) -> None:
    text = f"""(module (import "hzc" "log" (func $log (param i32 i32 i32) (result i32)))
      (import "hzc" "random" (func $random (param i32 i32) (result i32))) {NO_MEMORY[what]}
      (func (export "_start")
        (if (i32.ne (call $log (i32.const 0) (i32.const 0) (i32.const 8)) (i32.const -3)) (then unreachable))
        (drop (call $random (i32.const 0) (i32.const 8)))))"""
    assert lab.run(text).kind == "exit"


def test_a_command_is_no_reactor_and_the_other_way_round(lab: Lab) -> None:
    command_ = wat('(module (memory (export "memory") 1) (func (export "_start")))')
    assert "does not export memory, alloc" in lab.run(command_, entry="reactor").detail
    assert lab.run(command_, entry="reactor").kind == "invalid"
    assert "no function _start" in lab.run(module(), entry="command").detail


REPLIES = {
    "out of memory": f"(i64.const {END - 1 << 32 | 2})",
    "at the end, nothing": f"(i64.const {END << 32})",
    "behind the end, nothing": f"(i64.const {END + 1 << 32})",
    "negative address": "(i64.const 0xffffffff00000001)",
    "4 GiB": "(i64.const 0x00000000ffffffff)",
    "all ones": "(i64.const -1)",
    "2 GiB at 2 GiB": "(i64.const 0x8000000080000000)",
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("what", REPLIES)
def test_a_reply_that_does_not_lie_in_memory_is_refused(lab: Lab, profile: str, what: str) -> None:
    text = f"""(module (memory (export "memory") 8)
      (func (export "alloc") (param i32) (result i32) (i32.const 0))
      (func (export "handle") (param i32 i32) (result i64) {REPLIES[what]}))"""
    for output in (8 << 20, 2**32 - 1):
        report = lab.run(text, b"12", entry="reactor", profile=profile, bounds=Bounds(memory_mib=4, output=output))
        if what == "at the end, nothing":
            assert (report.kind, report.output) == ("exit", b"")
        else:
            assert (report.kind, report.trap) == ("trap", "bad_response")
            assert "handle returned" in report.detail


@pytest.mark.parametrize("at", [END - 1, END, END + 1, -1, -(2**31), 2**31 - 1])
def test_an_alloc_that_does_not_lie_in_memory_is_refused(lab: Lab, at: int) -> None:
    text = f"""(module (memory (export "memory") 8)
      (func (export "alloc") (param i32) (result i32) (i32.const {at}))
      (func (export "handle") (param i32 i32) (result i64) unreachable))"""
    report = lab.run(text, b"12", entry="reactor")
    assert (report.trap, "alloc(2) gave" in report.detail) == ("bad_response", True)


def test_an_alloc_that_lies_about_a_memory_which_it_grows(lab: Lab) -> None:
    text = """(module (memory (export "memory") 1)
      (func (export "alloc") (param i32) (result i32)
        (i32.shl (memory.grow (i32.const 20)) (i32.const 16)))
      (func (export "handle") (param $at i32) (param $size i32) (result i64)
        (drop (memory.grow (i32.const 20)))
        (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $size)))))"""
    data = random.Random(1).randbytes(1_200_000)
    assert lab.run(text, data, entry="reactor").output == data


CLOCK = struct.Struct("<QB7xI4xQQH6x")


@pytest.mark.parametrize("profile", PROFILES)
def test_polls_of_any_number(lab: Lab, profile: str) -> None:
    for count, errno in ((0, INVAL), (MOST + 1, INVAL), (10**6, INVAL), (2**31, INVAL), (2**32 - 1, INVAL)):
        assert ends(lab, Script().add("poll_oneoff", 0, 0, count, 0), profile) == [errno]
    script = Script().add("grow", 10)
    subs = script.blob(CLOCK.pack(7, 0, 1, 0, 0, 0) * MOST)
    ret = script.room(8)
    script.add("poll_oneoff", subs, END, MOST, ret).add("load", ret).add("load", END)
    found = ends(lab, script, profile)
    assert isinstance(found, list)
    assert (found[1], found[2] & 0xFFFFFFFF, found[3]) == (SUCCESS, MOST, 7)


TIMEOUTS = (2**63, 2**64 - 1, 2**63 - 1, 10**18)


@pytest.mark.parametrize("timeout", TIMEOUTS)
@pytest.mark.parametrize("clock", [0, 1])
@pytest.mark.parametrize("flags", [0, 1])
def test_absurd_timeouts_end_with_the_call(lab: Lab, timeout: int, clock: int, flags: int) -> None:
    script = Script()
    script.add(
        "poll_oneoff", script.blob(CLOCK.pack(1, 0, clock, timeout, 0, flags)), script.room(32), 1, script.room(4)
    )
    began = time.monotonic()
    report = lab.run(module(), script.request(), entry="reactor", timeout_s=0.2)
    assert time.monotonic() - began < 50
    assert report.trap == "interrupt" or (flags == 1 and timeout == 10**18 and clock == 0)
    # Logical time jumps, and everything that tells it still does.
    script.add("poll_oneoff", script.blob(CLOCK.pack(1, 0, 1, timeout, 0, 0)), script.room(32), 1, script.room(4))
    script.add("hzc.now").add("clock_time_get", 0, 0, 8).add("load", 8).add("clock_time_get", 1, 0, 8).add("load", 8)
    script.write(CONTROL_FD, b"now\0")
    found = ends(lab, script, "metered")
    assert isinstance(found, list)
    assert min(found) >= 0
    assert [found[n] for n in (0, 1, 3, 5, 7)] == [SUCCESS] * 5
    assert found[4] - found[2] == 1000


@pytest.mark.parametrize("profile", PROFILES)
def test_polls_that_nobody_offers(lab: Lab, profile: str) -> None:
    half_a_minute = CLOCK.pack(2, 0, 1, 30 * 10**9, 0, 0)
    for other in (
        CLOCK.pack(1, 0, 9, 10, 0, 0),
        CLOCK.pack(1, 0, 2, 10, 0, 0),
        CLOCK.pack(1, 1, 99, 0, 0, 0),
        CLOCK.pack(1, 2, 0, 0, 0, 0),
        CLOCK.pack(1, 3, 0, 0, 0, 0),
        CLOCK.pack(1, 255, 0, 0, 0, 0),
        CLOCK.pack(1, 1, CONTROL_FD, 0, 0, 0),
    ):
        script = Script()
        script.add("poll_oneoff", script.blob(other + half_a_minute), script.room(64), 2, script.room(4))
        began = time.monotonic()
        report = lab.run(module(), script.request(), entry="reactor", profile=profile, timeout_s=60)
        assert time.monotonic() - began < 28
        assert report.trap in (None, "host_error")


@pytest.mark.parametrize("profile", PROFILES)
def test_random_bytes_of_any_number(lab: Lab, profile: str) -> None:
    bounds = Bounds(memory_mib=128)
    for size, expected in ((RANDOM_MOST, SUCCESS), (RANDOM_MOST + 1, INVAL), (2**32 - 1, INVAL)):
        script = Script().add("grow", 1100).add("random_get", 0, size)
        found = ends(lab, script, profile, bounds)
        # At 0 it writes over what is to be done, and nothing more is.
        assert (found == [8, expected]) if expected else isinstance(found, list | str)
    for at, size in ((END - 1, 2), (END, 1), (2**32 - 1, 1), (0, END + 1)):
        found = ends(lab, Script().add("random_get", at, size), profile)
        assert found == [FAULT] or found in TRAPS


def test_a_loop_that_only_asks_the_host_ends_in_time(lab: Lab) -> None:
    text = """(module (import "wasi_snapshot_preview1" "random_get" (func $f (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (loop $again (drop (call $f (i32.const 0) (i32.const 65536))) (br $again))))"""
    for profile in PROFILES:
        assert lab.run(text, profile=profile, timeout_s=0.3).trap == "interrupt"


READS_FOLDERS = """(module
  (import "wasi_snapshot_preview1" "fd_readdir" (func $f (param i32 i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func $read (result i32) (call $f (i32.const 3) (i32.const 0) (i32.const 100) (i64.const 0) (i32.const 200)))
  (func $deep (result i32) (drop (call $read)) (i32.add (call $deep) (i32.const 1)))
  (func $loop (loop $l (drop (call $read)) (br $l)))
  (func (export "_start") {body}))"""


def test_the_end_of_a_call_may_come_while_a_host_function_runs_code_of_its_own(lab: Lab, tmp_path: Path) -> None:
    """Directories of the deterministic profile are read by WASM of ours: on the guest's stack, fuel and time."""
    folders = [Folder(str(tmp_path), "/in")]
    endless, deep = READS_FOLDERS.format(body="(call $loop)"), READS_FOLDERS.format(body="(drop (call $deep))")
    assert lab.run(deep, profile="metered", folders=folders).trap == "stack_overflow"
    for fuel in range(20, 200):
        bounds = Bounds(memory_mib=4, fuel=fuel)
        report = lab.run(endless, profile="metered", folders=folders, bounds=bounds)
        assert (report.trap, report.fuel) == ("out_of_fuel", fuel)
    for late in range(10):
        report = lab.run(endless, profile="metered", folders=folders, timeout_s=0.05 + late / 1000)
        assert report.trap == "interrupt"
