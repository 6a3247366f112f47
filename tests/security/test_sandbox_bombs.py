"""Guests that want too much: time, memory, tables, instances, stack, and the compiler's work."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox import artefacts
from hanzo_compute.adapters.sandbox.artefacts import CannotCompile, CompileFailed
from hanzo_compute.adapters.sandbox.call import Bounds, Call, Report
from tests.support.inprocess import InProcess
from tests.support.sandbox import PROFILES, Lab
from tests.support.wasi_script import NOSPC, SUCCESS, Script, module, results
from tests.support.wasm import SLEEP_30_S, SPIN, command, wat

EARLY_S = 28.0
"""Far below the 30 s of a sleep, far above what a loaded machine may lose."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


GROWS_FOR_EVER = "(loop $l (drop (memory.grow (i32.const 1))) (br $l))"
ENDLESS = {
    "loop": SPIN,
    "branches": "(block $b (loop $l (br_table $l $l $l (i32.const 7))))",
    "calls that return": "(loop $l (call $nothing) (br $l))",
    "growth that is refused": GROWS_FOR_EVER,
    "fills of memory": "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))",
    "writes of nothing": (
        "(loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8))) (br $l))"
    ),
    "writes to a full stream": (
        "(i32.store (i32.const 4) (i32.const 65536))"
        "(loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l))"
    ),
    "polls of nothing": "(loop $l (drop (call $poll (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8))) (br $l))",
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_interrupted_and_not_killed(lab: Lab, profile: str, what: str) -> None:
    binary = command(ENDLESS[what], extra="(func $nothing)")
    lab.run(command(""), profile=profile)
    report = lab.run(binary, timeout_s=0.3, profile=profile)
    assert (report.kind, report.trap) == ("trap", "interrupt")
    assert 250 <= report.wall_ms < EARLY_S * 1000


def test_a_start_function_without_end_is_interrupted(lab: Lab) -> None:
    text = f'(module (memory (export "memory") 1) (func $s {SPIN}) (start $s) (func (export "_start")))'
    report = lab.run(text, timeout_s=0.3)
    assert (report.kind, report.trap) == ("trap", "interrupt")


def test_a_sleep_ends_with_the_time_and_the_worker_lives_on(lab: Lab) -> None:
    began = time.monotonic()
    report = lab.run(command(SLEEP_30_S), timeout_s=0.3)
    assert (report.kind, report.trap) == ("trap", "interrupt")
    assert time.monotonic() - began < EARLY_S


@pytest.mark.parametrize("body", [SPIN, SLEEP_30_S], ids=["busy", "asleep"])
def test_the_same_in_process(body: str) -> None:
    with InProcess() as here:
        report = here.run(command(body), timeout_s=0.3)
    assert (report.kind, report.trap) == ("trap", "interrupt")
    assert report.wall_ms < EARLY_S * 1000


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("limit_mib", [1, 16, 64])
def test_memory_ends_at_its_limit(lab: Lab, profile: str, limit_mib: int) -> None:
    body = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
    report = lab.run(command(body), bounds=Bounds(memory_mib=limit_mib), profile=profile)
    assert (report.kind, report.memory_bytes, report.at_memory_limit) == ("exit", limit_mib << 20, True)


def test_a_memory_that_is_too_large_from_the_start_is_oom(lab: Lab) -> None:
    assert lab.run(command("", memory="65536")).kind == "oom"
    assert lab.run(command("", memory="1025")).kind == "oom"
    assert lab.run(command("", memory="1024")).kind == "exit"


@pytest.mark.timeout(900)
def test_a_gib_is_filled_in_one_instruction_within_its_limit_only(lab: Lab) -> None:
    body = "(memory.fill (i32.const 0) (i32.const 255) (i32.const 0x40000000))"
    assert lab.run(command(body, memory="16")).trap == "memory_out_of_bounds"
    grown = f"(drop (memory.grow (i32.const 16383))) {body}"
    assert lab.run(command(grown)).trap == "memory_out_of_bounds"
    report = lab.run(command(grown), bounds=Bounds(memory_mib=1024))
    assert (report.kind, report.memory_bytes) == ("exit", 1 << 30)
    # What it had is given back, and is no other's.
    assert lab.run(command("(if (i32.load (i32.const 65528)) (then unreachable))", memory="16")).kind == "exit"


@pytest.mark.timeout(900)
def test_many_gib_one_after_the_other_leave_the_worker_with_none(lab: Lab) -> None:
    body = "(drop (memory.grow (i32.const 8000))) (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x1f400000))"
    for _ in range(5):
        assert lab.run(command(body), bounds=Bounds(memory_mib=512)).kind == "exit"
    status = Path(f"/proc/{lab.worker().pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) >> 10
    assert resident < 400


@pytest.mark.parametrize("profile", PROFILES)
def test_a_table_ends_at_its_limit(lab: Lab, profile: str) -> None:
    body = """(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1))))
      (call $exit (table.size $t))"""
    report = lab.run(command(body, extra="(table $t 1 funcref)"), profile=profile)
    assert report.exit_code is not None
    assert 900_000 < report.exit_code <= 1_000_000


REFUSED = {
    "two memories": ("(memory 1) (memory 1)", "memories"),
    "many tables": ("(table 1 funcref)" * 5, "tables"),
    "a table of two million": ("(table 2000000 funcref)", "2000000 elements"),
    "many globals": ("(global i32 (i32.const 0))" * 20_001, "globals"),
    "many imports": ('(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))' * 1001, "imports"),
    "an import that nobody offers": ('(import "env" "system" (func))', "env.system"),
    "a function that hzc does not have": ('(import "hzc" "exec" (func))', "hzc.exec"),
    "a function that WASI does not have": ('(import "wasi_snapshot_preview1" "exec" (func))', "linked"),
    "a function of WASI of another type": ('(import "wasi_snapshot_preview1" "fd_write" (func))', "linked"),
    "a function of hzc of another type": ('(import "hzc" "now" (func (param i64)))', "linked"),
    "an imported memory": ('(import "wasi_snapshot_preview1" "memory" (memory 1))', "memory"),
    "an imported global": ('(import "hzc" "now" (global i32))', "global"),
    "our own parts": ('(import "host" "poll" (func (param i32 i32 i32 i32 i64 i64) (result i32)))', "host.poll"),
    "the gate's tray": ('(import "gate" "tray" (memory 3 3))', "gate.tray"),
    "the unstable WASI": ('(import "wasi_unstable" "sched_yield" (func (result i32)))', "wasi_unstable"),
    "a name of 300,000 letters": (f'(import "env" "{"x" * 300_000}" (func))', "env.xxx"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_before_it_runs_with_a_reason_of_bounded_length(lab: Lab, what: str) -> None:
    fields, reason = REFUSED[what]
    with pytest.raises(CannotCompile) as refused:
        lab.ask(f'(module {fields} (func (export "_start")))')
    assert reason in str(refused.value)
    assert len(str(refused.value)) <= 2000


@pytest.mark.parametrize("what", ["two memories", "an import that nobody offers"])
def test_a_refusal_says_what_to_do_and_is_remembered(lab: Lab, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = wat(f'(module {REFUSED[what][0]} (func (export "_start")))')
    with pytest.raises(CannotCompile) as first:
        lab.ask(binary)
    monkeypatch.setattr(artefacts.Artefacts, "_run", no_compiler)
    with pytest.raises(CannotCompile) as second:
        lab.ask(binary)
    assert str(second.value) == str(first.value)


def no_compiler(*_: object) -> tuple[int, str]:
    raise AssertionError("a compiler was started")


def many(count: int, escape: bool = False) -> bytes:
    """A module of so many functions; ``escape``: each could be in a table, which takes room in each instance."""
    functions = "".join(f"(func $f{n} (result i32) (i32.const {n}))" for n in range(count))
    declared = f"(elem declare func {' '.join(f'$f{n}' for n in range(count))})" if escape else ""
    return wat(f'(module (table 1 funcref) {functions} {declared} (func (export "_start")))')


def locals_bomb(functions: int, each: int) -> bytes:
    """So many functions with so many locals each, in a few bytes."""
    body = bytes([1]) + leb(each) + b"\x7e\x0b"
    code = leb(functions) + b"".join(leb(len(body)) + body for _ in range(functions))
    return (
        b"\0asm\1\0\0\0"
        + section(1, b"\1\x60\0\0")
        + section(3, leb(functions) + bytes(functions))
        + section(7, b"\1\6_start\0\0")
        + section(10, code)
    )


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def leb(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


COMPILE_BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "100,000 functions": (lambda: many(100_000), "functions"),
    "50,000 locals": (lambda: locals_bomb(1, 50_000), "locals"),
    "4 billion locals": (lambda: locals_bomb(1, 2**32 - 1), "locals"),
    "2,300,000 locals together": (lambda: locals_bomb(230, 10_000), "locals together"),
    "a function of 3 MiB": (
        lambda: wat('(module (func (export "_start")' + "(drop (i32.const 1))" * 800_000 + "))"),
        "bytes of code",
    ),
}


@pytest.mark.parametrize("what", COMPILE_BOMBS)
def test_a_compile_bomb_is_refused_before_it_is_compiled(lab: Lab, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = COMPILE_BOMBS[what]
    binary = make()
    began = time.monotonic()
    with pytest.raises(CannotCompile, match=reason):
        lab.ask(binary)
    assert time.monotonic() - began < EARLY_S
    monkeypatch.setattr(artefacts.Artefacts, "_run", no_compiler)
    with pytest.raises(CannotCompile, match=reason):
        lab.ask(binary)


@pytest.mark.timeout(900)
def test_the_largest_that_is_accepted_compiles_loads_and_runs(lab: Lab) -> None:
    """What is accepted by its counts must not fail for want of room in the worker."""
    globals_ = "".join(f"(global $g{n} (mut v128) (v128.const i64x2 0 0))" for n in range(20_000))
    functions = "".join(f"(func $f{n})" for n in range(49_000))
    escape = f"(elem declare func {' '.join(f'$f{n}' for n in range(49_000))})"
    tables = "(table 1000000 funcref)" * 4
    text = f'(module {tables} {globals_} {functions} {escape} (memory (export "memory") 1) (func (export "_start")))'
    assert lab.run(text).kind == "exit"


def test_a_compiler_that_takes_too_long_is_ended_and_that_is_remembered(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "OWN_SHARE", 0.0)  # however busy the machine is: the next test is about that
    binary = many(30_000, escape=True)
    digest = hashlib.sha256(binary).hexdigest()
    with pytest.raises(CannotCompile, match=r"longer than 1 s"):
        lab.artefacts().get(digest, lambda: binary, timeout_s=1.0)
    monkeypatch.setattr(artefacts.Artefacts, "_run", no_compiler)
    with pytest.raises(CannotCompile, match=r"longer than 1 s"):
        lab.artefacts().get(digest, lambda: binary)


def test_a_compiler_that_the_machine_held_up_is_no_fault_of_the_module(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = many(20_000, escape=True)
    digest = hashlib.sha256(binary).hexdigest()
    with monkeypatch.context() as held:
        held.setattr(artefacts, "cpu_ms", lambda _: 200)
        with pytest.raises(CompileFailed, match="the machine is busy"):
            lab.artefacts().get(digest, lambda: binary, timeout_s=1.0)
    lab.artefacts().get(digest, lambda: binary, timeout_s=600)


DEEP = {
    "small frames": "(func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))",
    "large frames": "(func $deep (param i32) (result i32) "
    + " ".join(f"(local $l{n} i64)" for n in range(1000))
    + " ".join(f"(local.set $l{n} (i64.load (local.get 0)))" for n in range(1000))
    + "(drop (call $deep (i32.add (local.get 0) (i32.const 1))))"
    + " ".join(f"(i64.store (local.get 0) (local.get $l{n}))" for n in range(1000))
    + "(i32.const 0))",
    "through a table": """(type $t (func (param i32) (result i32))) (table 1 funcref) (elem (i32.const 0) $deep)
      (func $deep (param i32) (result i32)
        (i32.add (call_indirect (type $t) (local.get 0) (i32.const 0)) (i32.const 1)))""",
    "with a host call at each level": """(func $deep (param i32) (result i32)
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8)))
      (drop (call $poll (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)))
      (i32.add (call $deep (local.get 0)) (i32.const 1)))""",
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("what", DEEP)
def test_recursion_without_end_is_a_trap(lab: Lab, profile: str, what: str) -> None:
    binary = command("(drop (call $deep (i32.const 0)))", extra=DEEP[what])
    for _ in range(3):
        report = lab.run(binary, profile=profile)
        assert (report.kind, report.trap) == ("trap", "stack_overflow")


@pytest.mark.parametrize("what", DEEP)
def test_recursion_in_process_is_a_trap_on_every_thread(what: str) -> None:
    binary = command("(drop (call $deep (i32.const 0)))", extra=DEEP[what])
    reports: list[Report] = []

    def one() -> None:
        with InProcess() as here:
            reports.append(here.run(binary))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [report.trap for report in reports] == ["stack_overflow"] * 3


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("stream", [1, 2])
def test_output_is_cut_exactly_and_the_guest_is_told(lab: Lab, profile: str, stream: int) -> None:
    script = Script()
    data = script.blob(bytes(range(256)) * 8)
    # 100,000 = 48 * 2048 + 1696
    for _ in range(60):
        script.add("fd_write", stream, script.iovec((data, 2048)), 1, script.room(4))
    report = lab.run(
        module(), script.request(), entry="reactor", bounds=Bounds(memory_mib=4, output=100_000), profile=profile
    )
    text = report.stdout if stream == 1 else report.stderr
    assert len(text) == 100_000
    assert text == (bytes(range(256)) * 400)[:100_000]
    assert report.limits == ["stdout" if stream == 1 else "stderr"]
    assert results(report.output) == [SUCCESS] * 49 + [NOSPC] * 11


def test_output_of_a_gib_in_one_call_is_cut(lab: Lab) -> None:
    script = Script()
    pieces = [(65536, 65536)] * 1000
    for _ in range(20):
        script.add("fd_write", 1, script.iovec(*pieces), 1000, script.room(4))
    report = lab.run(module(), script.request(), entry="reactor", bounds=Bounds(memory_mib=4, output=1 << 20))
    assert (len(report.stdout), report.limits) == (1 << 20, ["stdout"])


@pytest.mark.parametrize("most", [0, 1, 96_255, 96_256, 96_257, 192_512, 192_513])
def test_output_at_the_edges_of_its_region(lab: Lab, most: int) -> None:
    script = Script()
    data = script.blob(b"0123456789abcdef" * 256)
    for _ in range(50):
        script.add("fd_write", 1, script.iovec((data, 4001)), 1, script.room(4))
    report = lab.run(module(), script.request(), entry="reactor", bounds=Bounds(memory_mib=4, output=most))
    assert report.stdout == ((b"0123456789abcdef" * 256)[:4001] * 50)[:most]
    assert report.limits == (["stdout"] if most < 4001 * 50 else [])


def test_a_call_without_a_deadline_is_stopped_by_another_thread() -> None:
    with InProcess() as here:
        binary, over = command(SLEEP_30_S), threading.Event()

        def stop() -> None:
            """Again and again: what comes before the call is of no effect on it."""
            while not over.wait(0.3):
                here.stop()

        stopping = threading.Thread(target=stop)
        stopping.start()
        report = here.call(binary, Call())
        over.set()
        stopping.join()
        assert (report.kind, report.trap) == ("trap", "interrupt")
        assert report.wall_ms < EARLY_S * 1000
