"""One call in the sandbox, in this process, by wasmtime's C API and by its public one: both must behave alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox import binding, public, shim
from hanzo_compute.adapters.sandbox.call import Bounds, Call, Folder, Report
from hanzo_compute.adapters.sandbox.hostcalls import FUNCTIONS, HostCalls
from hanzo_compute.adapters.sandbox.shim import WASI
from hanzo_compute.model.wasm import TABLES_MAX
from tests.support.inprocess import InProcess
from tests.support.wasm import IMPORTS, command, wat, writes

ECHO = '(func (export "handle") (param $at i32) (param $n i32) (result i64) {})'
PACK = "(i64.or (i64.shl (i64.extend_i32_u {at}) (i64.const 32)) (i64.extend_i32_u {size}))"


def reactor(handle: str, *, alloc: str = "(i32.const 1024)", memory: str = "1 4") -> bytes:
    """A reactor: ``handle`` is WAT that gives an i64 from $at and $n."""
    return wat(
        f'(module (import "hzc" "log" (func $log (param i32 i32 i32) (result i32)))'
        f'(import "hzc" "random" (func $random (param i32 i32) (result i32)))'
        f'(memory (export "memory") {memory}) (func (export "alloc") (param $n i32) (result i32) {alloc})'
        f"{ECHO.format(handle)})"
    )


class Here(InProcess):
    """A sandbox on a thread of its own, as in a worker."""

    def report(self, wasm: bytes, count: int = 1, **fields: Any) -> Report:
        """The last report of ``count`` calls."""
        for _ in range(count - 1):
            self.call(wasm, Call(**fields))
        return self.call(wasm, Call(**fields))


@pytest.fixture(params=["raw", "public"])
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    if request.param == "public":
        monkeypatch.setenv("HZC_WASMTIME_PUBLIC", "1")
    with Here() as made:
        assert isinstance(made.engine.backend, binding.Raw if request.param == "raw" else public.Public)
        yield made


WHOLE = PACK.format(at="(local.get $at)", size="(local.get $n)")


@pytest.mark.parametrize("size", [0, 1, 64, 60_000])
def test_a_reactor_gets_its_request_and_gives_its_response(here: Here, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    report = here.report(reactor(WHOLE), 3, entry="reactor", stdin=data)
    assert (report.kind, report.exit_code, report.output) == ("exit", 0, data)
    assert report.memory_bytes == 65536


def test_a_high_address_is_an_address(here: Here) -> None:
    # alloc gives an i32 below zero, as all addresses beyond 2 GiB are.
    wasm = reactor(WHOLE, alloc="(i32.const 0x80000010)", memory="32769")
    report = here.report(wasm, entry="reactor", stdin=b"far away", bounds=Bounds(memory_mib=4095))
    assert report.output == b"far away"


@pytest.mark.parametrize(
    ("handle", "alloc", "detail"),
    [
        (WHOLE, "(i32.const 65535)", "alloc(3) gave 65535, which does not lie in its memory"),
        (WHOLE, "(i32.const -1)", "alloc(3) gave 4294967295, which does not lie in its memory"),
        ("(i64.const -1)", "(i32.const 0)", "handle returned 4294967295 bytes, over the bound of 100"),
        (f"(i64.const {65535 << 32 | 2})", "(i32.const 0)", "handle returned 2 bytes at 65535, which do not lie in"),
    ],
)
def test_what_lies_outside_of_memory_is_refused(here: Here, handle: str, alloc: str, detail: str) -> None:
    report = here.report(reactor(handle, alloc=alloc), 2, entry="reactor", stdin=b"abc", bounds=Bounds(output=100))
    assert (report.kind, report.trap) == ("trap", "bad_response")
    assert report.detail.startswith(detail)


@pytest.mark.parametrize("where", ["alloc", "handle"])
def test_a_trap_in_either_function_is_named_and_the_next_call_runs(here: Here, where: str) -> None:
    bad = reactor(f"unreachable {WHOLE}") if where == "handle" else reactor(WHOLE, alloc="unreachable")
    report = here.report(bad, 3, entry="reactor", stdin=b"abc")
    assert (report.kind, report.trap) == ("trap", "unreachable")
    assert "unreachable" in report.detail
    assert here.report(reactor(WHOLE), entry="reactor", stdin=b"abc").output == b"abc"


MANY = 200
VALUES = " ".join(["(i64.const 0x4141414141414141)"] * MANY)


@pytest.mark.parametrize(
    ("entry", "functions"),
    [
        ("command", f'(func (export "_start") (result {"i64 " * MANY}) {VALUES})'),
        ("command", f'(func (export "_start") (param {"i64 " * MANY}))'),
        ("command", '(global (export "_start") i32 (i32.const 0))'),
        ("reactor", '(func (export "alloc") (param i64) (result i32) (i32.const 0))'),
        (
            "reactor",
            '(func (export "alloc") (param i32) (result i32) (i32.const 0))'
            f'(func (export "handle") (param i32 i32) (result {"i64 " * MANY}) {VALUES})',
        ),
        (
            "reactor",
            '(func (export "alloc") (param i32) (result i32) (i32.const 0))'
            '(global (export "handle") i32 (i32.const 0))',
        ),
    ],
)
def test_entries_of_another_type_are_never_called(here: Here, entry: str, functions: str) -> None:
    # They are called without checks: values would be written over whatever lies behind ours.
    report = here.report(wat(f'(module (memory (export "memory") 1) {functions})'), 2, entry=entry)
    assert report.kind == "invalid"
    assert "it exports no" in report.detail or "it does not export" in report.detail


@pytest.mark.parametrize("kind", ['(global (export "memory") i32 (i32.const 7))', '(func (export "memory"))'])
def test_a_memory_that_is_none_is_not_taken_for_one(here: Here, kind: str) -> None:
    assert here.report(wat(f'(module {kind} (func (export "_start")))')).exit_code == 0
    both = '(func (export "alloc") (param i32) (result i32) (i32.const 0))' + ECHO.format("(i64.const 0)")
    assert here.report(wat(f"(module {kind} {both})"), entry="reactor").kind == "invalid"


def test_host_functions_take_integers_of_all_sizes_and_answer(here: Here) -> None:
    handle = (
        "(if (i32.ne (call $log (i32.const 1) (local.get $at) (local.get $n)) (i32.const 0)) (then unreachable))"
        "(if (i32.ne (call $log (i32.const -1) (local.get $at) (local.get $n)) (i32.const -3)) (then unreachable))"
        "(if (i32.ne (call $random (i32.const 0) (i32.const 70000)) (i32.const -3)) (then unreachable))"
        f"(drop (call $random (i32.const 16) (i32.const 16))) {PACK.format(at='(i32.const 16)', size='(i32.const 16)')}"
    )
    said: list[tuple[str, str]] = []
    host = HostCalls(frozenset(), None, lambda level, text: said.append((level, text)))
    report = here.report(reactor(handle, memory="2"), entry="reactor", stdin=b"hello", host=host)
    assert said == [("info", "hello")]
    assert len(report.output) == 16
    assert any(report.output)
    assert report.counters == {"hzc.log": 2, "hzc.random": 2}


def test_one_call_leaves_nothing_to_the_next(here: Here) -> None:
    # It answers with what was in memory before, and leaves something there.
    handle = f"(drop (i32.load (i32.const 60000))) {PACK.format(at='(i32.const 60000)', size='(i32.const 4)')}"
    leaves = handle.replace("(drop (i32.load", "(i32.store (i32.const 60000) (i32.add (i32.const 1) (i32.load", 1)
    leaves = leaves.replace("(i32.const 60000))) ", "(i32.const 60000)))) ", 1)
    assert here.report(reactor(leaves), 20, entry="reactor").output == b"\1\0\0\0"


def test_a_reactor_ends_at_its_deadline(here: Here) -> None:
    wasm = reactor(f"(loop $again (br $again)) {WHOLE}")
    here.report(reactor(WHOLE), entry="reactor")
    here.load(wasm)  # so that its time goes to the call alone
    began = time.monotonic()
    report = here.report(wasm, entry="reactor", deadline=began + 0.2)
    assert (report.kind, report.trap) == ("trap", "interrupt")
    assert 0.2 <= time.monotonic() - began < 60
    assert report.wall_ms >= 1


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_command_has_its_streams(here: Here, deterministic: bool) -> None:
    wasm = command(writes("abc") + writes("abc", 2), extra='(data (i32.const 1024) "abc")')
    report = here.report(wasm, 5, deterministic=deterministic, seed=b"s")
    assert (report.exit_code, report.stdout, report.stderr) == (0, b"abc", b"abc")
    assert report.counters == {"fd_write": 2}


def test_a_module_may_have_as_many_tables_as_are_promised(here: Here) -> None:
    tables = "(table 10 funcref) " * TABLES_MAX
    report = here.report(command(writes("abc"), extra=f'{tables} (data (i32.const 1024) "abc")'))
    assert (report.exit_code, report.stdout) == (0, b"abc")


def test_all_of_wasi_and_of_hzc_can_be_imported(here: Here) -> None:
    kinds = [(WASI, name, params, "i32") for name, params in (shim.SIGNATURES | shim.PASSED).items()]
    kinds = [each if each[1] != "proc_exit" else (*each[:3], None) for each in kinds]
    for name, shape in FUNCTIONS.items():
        wide = {"bytes": ("i32", "i32"), "buffer": ("i32", "i32"), "out": ("i32",)}
        params = tuple(each for kind in shape.params for each in wide.get(kind, (kind,)))
        kinds.append(("hzc", name, params, shape.result))
    imports = [
        f'(import "{module}" "{name}" (func (param {" ".join(params)}) {f"(result {result})" if result else ""}))'
        for module, name, params, result in kinds
    ]
    report = here.report(wat(f'(module {" ".join(imports)} (memory (export "memory") 1) (func (export "_start")))'), 2)
    assert (report.kind, report.exit_code) == ("exit", 0)


@pytest.mark.parametrize("module", ["host", "gate", "hzc"])
def test_what_is_not_offered_cannot_be_imported(here: Here, module: str) -> None:
    wasi = f'(import "{WASI}" "sched_yield" (func (result i32)))'
    for more in ("", wasi):
        report = here.report(wat(f'(module {more} (import "{module}" "drain" (func)) (func (export "_start")))'))
        assert report.kind == "invalid"
        assert f"{module}::drain" in report.detail


def test_files_are_reached_through_the_ward(here: Here, tmp_path: Path) -> None:
    opens = """
      (drop (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 1)
        (i64.const 0x1FFFFFFF) (i64.const 0) (i32.const 0) (i32.const 100)))
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 4))
      (drop (call $write (i32.load (i32.const 100)) (i32.const 0) (i32.const 1) (i32.const 8)))"""
    function = "(func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))"
    imports = f'{IMPORTS} (import "{WASI}" "path_open" {function})'
    wasm = wat(
        f'(module {imports} (memory (export "memory") 1) (data (i32.const 1024) "name")'
        f'(func (export "_start") {opens}))'
    )
    report = here.report(wasm, folders=[Folder(str(tmp_path), "/x", writable=True)])
    assert report.counters == {"fd_write": 1, "path_open": 1}
    assert (tmp_path / "name").read_bytes() == b"name"
