"""The WASM runner on modules: every way a program can end, and every limit that can end it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox import process
from hanzo_compute.errors import Conflict, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category
from hanzo_compute.ports import Handle, Runner
from tests.support.wasm import SLEEP_30_S, SPIN, Runs, children, command, eventually, wat, writes

HELLO = '(data (i32.const 1024) "hello\\n")'


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Runs]:
    runner = WasmRunner(tmp_path_factory.mktemp("state"), cache, 2, SystemClock())
    yield Runs(runner)
    runner.close()


def worker_pids() -> set[int]:
    return children(os.getpid())


def test_it_is_a_runner(runs: Runs) -> None:
    runner: Runner = runs.runner
    assert isinstance(runner, Runner)
    assert runner.runtimes == {"wasm"}


def test_a_command_that_returns_is_ok(runs: Runs) -> None:
    outcome, stdout = runs.run(command(writes("hello\n"), extra=HELLO))
    assert (outcome.category, outcome.exit_code, stdout) == (Category.OK, 0, b"hello\n")
    assert outcome.truncated == []
    assert outcome.runtime_version == "wasmtime 50.0.1 hzc-wasi 1"
    assert outcome.usage.fuel is None  # nobody asked for a count, which costs speed
    assert outcome.usage.memory_peak_bytes == 65536
    assert outcome.usage.memory_mib_ms == 64 * outcome.usage.wall_ms


@pytest.mark.parametrize("code", [0, 1, 2, 42, 125, 126, 255, 256, 2**32 - 1])
def test_the_exit_code_is_the_programs_own(runs: Runs, code: int) -> None:
    outcome, _ = runs.run(command(f"(call $exit (i32.const {code}))"))
    assert outcome.exit_code == code
    assert outcome.category == (Category.EXIT if code else Category.OK)


def test_output_of_a_failure_is_kept(runs: Runs) -> None:
    body = writes("hello\n") + writes("hello\n", stream=2) + "(call $exit (i32.const 3))"
    handle = runs.start(command(body, extra=HELLO))
    outcome, stdout = runs.end(handle)
    assert (outcome.category, outcome.exit_code, stdout) == (Category.EXIT, 3, b"hello\n")
    assert {(entry.stream, entry.text) for entry in runs.entries(handle)} == {
        ("stdout", "hello\n"),
        ("stderr", "hello\n"),
    }
    assert outcome.detail == "exit code 3: hello"


TRAPS = {
    "unreachable": "unreachable",
    "memory_out_of_bounds": "(drop (i32.load (i32.const 70000)))",
    "integer_division_by_zero": "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
    "integer_overflow": "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
    "bad_conversion_to_integer": "(drop (i32.trunc_f32_s (f32.const nan)))",
    "indirect_call_to_null": "(call_indirect (type $nothing) (i32.const 0))",
    "table_out_of_bounds": "(call_indirect (type $nothing) (i32.const 9))",
    "stack_overflow": "(call $deep)",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_named_and_the_worker_lives_on(runs: Runs, trap: str) -> None:
    extra = "(type $nothing (func)) (table 2 funcref) (func $deep (call $deep))"
    runs.run(command(""))
    before = worker_pids()
    outcome, _ = runs.run(command(TRAPS[trap], extra=extra))
    assert (outcome.category, outcome.trap, outcome.exit_code) == (Category.TRAP, trap, None)
    assert outcome.detail.startswith(trap.replace("_", " "))
    assert worker_pids() >= before


def test_the_detail_of_a_trap_names_functions_and_is_safe_to_print(runs: Runs) -> None:
    extra = '(func $"in\\1b[31mner" unreachable)'
    outcome, _ = runs.run(command('(call $"in\\1b[31mner")', extra=extra))
    assert outcome.detail == "unreachable in in\\x1b[31mner < function 5"


def test_fuel_ends_the_program(runs: Runs) -> None:
    outcome, _ = runs.run(command(SPIN), fuel=100_000)
    assert outcome.category == Category.FUEL
    assert outcome.trap == "out_of_fuel"
    assert outcome.usage.fuel == 100_000


def test_fuel_counts_the_same_each_time(runs: Runs) -> None:
    count_on = "(local.tee $i (i32.add (local.get $i) (i32.const 1)))"
    body = f"(local $i i32) (loop $l (br_if $l (i32.lt_u {count_on} (i32.const 1000))))"
    used = {runs.run(command(body), fuel=10**9)[0].usage.fuel for _ in range(2)}
    assert len(used) == 1
    assert used.pop() > 1000  # type: ignore[operator]


def test_a_busy_program_is_interrupted_at_its_timeout_and_the_worker_lives_on(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 20.0)  # it is not killed because nobody let it go on
    runs.run(command(""))
    before = worker_pids()
    outcome, stdout = runs.run(command(writes("hello\n") + SPIN, extra=HELLO), timeout_ms=2000)
    assert (outcome.category, outcome.timed_out, stdout) == (Category.TIMEOUT, True, b"hello\n")
    assert 2000 <= outcome.usage.wall_ms < 20_000
    assert outcome.usage.cpu_ms > 0
    assert outcome.usage.fuel is None  # the engine has lost count, and we do not guess
    assert outcome.usage.memory_peak_bytes == 65536
    assert worker_pids() >= before


def test_a_sleeping_program_is_killed_at_its_timeout(runs: Runs) -> None:
    # The engine cannot interrupt a guest inside a host call: only the kill of the worker does.
    begin = time.monotonic()
    outcome, stdout = runs.run(command(writes("hello\n") + SLEEP_30_S, extra=HELLO), timeout_ms=2000)
    assert time.monotonic() - begin < 25
    assert (outcome.category, outcome.timed_out, stdout) == (Category.TIMEOUT, True, b"hello\n")
    assert outcome.usage.wall_ms >= 2000
    # The next one gets a new worker.
    assert runs.run(command(""))[0].category == Category.OK


@pytest.mark.parametrize("body", [SPIN, SLEEP_30_S])
def test_a_timeout_that_is_the_deadline_is_called_so(runs: Runs, body: str) -> None:
    outcome, _ = runs.run(command(body), timeout_ms=300, timeout_is_deadline=True)
    assert (outcome.category, outcome.timed_out) == (Category.DEADLINE, True)


def test_a_memory_that_cannot_be_had_at_the_start_is_oom(runs: Runs) -> None:
    outcome, _ = runs.run(command("", memory="100"), memory_mib=2)
    assert (outcome.category, outcome.oom) == (Category.OOM, True)
    assert "2 MiB" in outcome.detail


GROW_OR_TRAP = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"


def test_a_program_that_ends_badly_at_its_memory_limit_is_oom(runs: Runs) -> None:
    outcome, _ = runs.run(command(GROW_OR_TRAP), memory_mib=4)
    assert (outcome.category, outcome.oom, outcome.trap) == (Category.OOM, True, "unreachable")
    assert outcome.usage.memory_peak_bytes == 4 << 20


def test_a_program_at_a_maximum_of_its_own_is_not_oom(runs: Runs) -> None:
    outcome, _ = runs.run(command(GROW_OR_TRAP, memory="1 64"), memory_mib=4)
    assert (outcome.category, outcome.oom) == (Category.TRAP, False)


def test_a_refused_growth_is_no_failure_by_itself(runs: Runs) -> None:
    outcome, _ = runs.run(command("(drop (memory.grow (i32.const 60000)))"), memory_mib=4)
    assert outcome.category == Category.OK


def test_a_table_cannot_grow_without_bound(runs: Runs) -> None:
    extra = "(table $t 1 funcref)"
    body = "(if (i32.ne (table.grow $t (ref.null func) (i32.const 2000000)) (i32.const -1)) (then unreachable))"
    assert runs.run(command(body, extra=extra))[0].category == Category.OK


INVALID = {
    "no module at all": (b"hello", "begin with"),
    "text format": (b"(module)", "begin with"),
    "cut off": (b"\0asm\1\0\0\0\1\4", "ends in the middle"),
    "no _start": (wat("(module)"), "_start"),
    "_start is no function": (wat('(module (memory (export "_start") 1))'), "_start"),
    "_start with a result": (
        wat('(module (func (export "_start") (result i32) (i32.const 1)))'),
        "_start",
    ),
    "unknown import": (
        wat('(module (import "env" "launch" (func)) (func (export "_start")))'),
        "env.launch",
    ),
    "64-bit memory": (
        wat('(module (memory i64 1) (func (export "_start")))'),
        "64-bit memory",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_cannot_run_is_an_invalid_program_that_says_why(runs: Runs, name: str) -> None:
    module, why = INVALID[name]
    outcome, _ = runs.run(module)
    assert outcome.category == Category.INVALID_PROGRAM
    assert why in outcome.detail


def test_a_module_over_the_bound_is_refused(runs: Runs) -> None:
    handle = runs.start(b"\0asm" + b"\0" * bounds.BLOB_MAX)
    outcome, _ = runs.end(handle)
    assert outcome.category == Category.INVALID_PROGRAM
    assert str(bounds.BLOB_MAX) in outcome.detail
    runs.runner.cancel(handle, "cancelled")
    assert runs.end(handle)[0] == outcome


COPY_STDIN = """(local $n i32)
  (loop $more
    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 32768))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (local.set $n (i32.load (i32.const 8)))
    (i32.store (i32.const 4) (local.get $n))
    (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $exit (i32.const 9))))
    (br_if $more (local.get $n)))"""


def test_standard_input_comes_through_byte_by_byte(runs: Runs) -> None:
    data = bytes(range(256)) * 2000
    outcome, stdout = runs.run(command(COPY_STDIN), stdin=data)
    assert (outcome.category, stdout == data) == (Category.OK, True)


def test_output_that_just_fits_is_whole(runs: Runs) -> None:
    outcome, stdout = runs.run(command(COPY_STDIN), stdin=b"x" * bounds.OUTPUT_MAX)
    assert (outcome.category, len(stdout)) == (Category.OK, bounds.OUTPUT_MAX)
    assert outcome.truncated == ["log"]


def test_output_over_the_bound_is_cut_and_the_program_is_told(runs: Runs) -> None:
    outcome, stdout = runs.run(command(COPY_STDIN), stdin=b"x" * (bounds.OUTPUT_MAX + 100_000))
    assert (outcome.exit_code, len(stdout)) == (9, bounds.OUTPUT_MAX)
    assert outcome.truncated == ["stdout", "log"]


def test_one_huge_write_is_cut_at_the_bound(runs: Runs) -> None:
    body = """(i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 0x40000000))
      (call $exit (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"""
    outcome, stdout = runs.run(command(body, memory="16384"), memory_mib=1100)
    assert (outcome.exit_code, len(stdout)) == (0, bounds.OUTPUT_MAX)
    assert outcome.truncated == ["stdout", "log"]


def test_the_log_keeps_to_its_limit(runs: Runs) -> None:
    handle = runs.start(command(COPY_STDIN), stdin=b"0123456789\n" * 1000, log_limit=1024)
    outcome, stdout = runs.end(handle)
    assert len(stdout) == 11_000
    assert "".join(entry.text for entry in runs.entries(handle)) == ("0123456789\n" * 94)[:1024]
    assert outcome.truncated == ["log"]


def test_starting_again_changes_nothing(runs: Runs) -> None:
    lease = runs.lease({"module": "b1-" + "0" * 64})
    module = command(writes("hello\n"), extra=HELLO)
    first = runs.runner.start(lease, module=module, stdin=b"")
    assert runs.runner.start(lease, module=module, stdin=b"") == first
    outcome, stdout = runs.end(first)
    assert runs.runner.start(lease, module=module, stdin=b"other") == first
    assert runs.end(first) == (outcome, stdout)
    second = runs.runner.start(replace(lease, attempt=2), module=module, stdin=b"")
    assert second != first
    assert runs.end(second)[1] == b"hello\n"


@pytest.mark.parametrize("body", [SPIN, SLEEP_30_S])
@pytest.mark.parametrize("reason", ["cancelled", "deadline"])
def test_cancel_ends_what_runs_and_keeps_its_output(runs: Runs, body: str, reason: str) -> None:
    handle = runs.start(command(writes("hello\n") + body, extra=HELLO))
    runs.says(handle, "hello")
    begin = time.monotonic()
    runs.runner.cancel(handle, reason)
    outcome, stdout = runs.end(handle)
    assert time.monotonic() - begin < 25
    assert (outcome.category, stdout) == (reason, b"hello\n")


def test_cancel_after_the_end_changes_nothing(runs: Runs) -> None:
    handle = runs.start(command(""))
    outcome, _ = runs.end(handle)
    runs.runner.cancel(handle, "cancelled")
    assert runs.end(handle)[0] == outcome


def test_what_waits_in_line_can_be_cancelled_and_the_rest_is_served(runs: Runs) -> None:
    busy = [runs.start(command(SLEEP_30_S)) for _ in range(2)]
    waiting = [runs.start(command("")) for _ in range(2)]
    runs.runner.cancel(waiting[0], "cancelled")
    assert runs.end(waiting[0])[0].category == Category.CANCELLED
    assert not runs.runner.poll(waiting[1], 0)
    runs.runner.cancel(busy[0], "cancelled")
    assert runs.end(waiting[1])[0].category == Category.OK
    runs.runner.reap(busy[1])


def test_two_run_at_the_same_time(runs: Runs) -> None:
    handles = [runs.start(command(writes("hello\n") + SLEEP_30_S, extra=HELLO)) for _ in range(2)]
    for handle in handles:
        runs.says(handle, "hello")
    for handle in handles:
        runs.runner.reap(handle)


def test_many_threads_may_use_one_runner(runs: Runs) -> None:
    seen: dict[int, bytes] = {}

    def work(number: int) -> None:
        seen[number] = runs.run(command(COPY_STDIN), stdin=b"%d" % number)[1]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == {number: b"%d" % number for number in range(12)}


def test_reap_forgets_and_removes(runs: Runs) -> None:
    handle = runs.start(command(writes("hello\n") + SLEEP_30_S, extra=HELLO))
    runs.says(handle, "hello")
    runs.runner.reap(handle)
    with pytest.raises(NotFound):
        runs.runner.poll(handle, 0)
    runs.runner.reap(handle)
    runs.runner.reap(Handle("j-never", 1))


def test_questions_out_of_turn_are_refused(runs: Runs) -> None:
    handle = runs.start(command(SLEEP_30_S))
    with pytest.raises(Conflict):
        runs.runner.collect(handle)
    with pytest.raises(InvalidRequest):
        runs.runner.cancel(handle, "boredom")
    with pytest.raises(InvalidRequest):
        runs.runner.start(runs.lease({"module": "b1-" + "0" * 64}), module=None, stdin=b"")
    with pytest.raises(InvalidRequest):
        runs.runner.reap(Handle("../../etc", 1))
    runs.runner.reap(handle)


def test_close_is_quick_ends_everything_and_leaves_outcomes_to_adopt(tmp_path: Path, cache: Path) -> None:
    before = worker_pids()
    runner = WasmRunner(tmp_path, cache, 1, SystemClock())
    runs = Runs(runner)
    running = runs.start(command(writes("hello\n") + SLEEP_30_S, extra=HELLO))
    waiting = runs.start(command(""))
    runs.says(running, "hello")
    runner.close()
    eventually(lambda: worker_pids() <= before, "all workers gone")
    runner.close()
    with pytest.raises(Unavailable):
        runs.start(command(""))
    heir = WasmRunner(tmp_path, cache, 1, SystemClock())
    assert sorted(heir.adopt(), key=lambda handle: handle.job) == [running, waiting]
    for handle in (running, waiting):
        assert Runs(heir).end(handle)[0].category == Category.PLATFORM
    heir.close()


def test_a_state_folder_has_one_runner(runs: Runs, tmp_path: Path, cache: Path) -> None:
    runner = WasmRunner(tmp_path, cache, 1, SystemClock())
    with pytest.raises(Unavailable, match="in use"):
        WasmRunner(tmp_path, cache, 1, SystemClock())
    runner.close()
    WasmRunner(tmp_path, cache, 1, SystemClock()).close()


def test_a_full_disk_is_our_fault(runs: Runs, tmp_path: Path, cache: Path) -> None:
    runner = WasmRunner(tmp_path / "state", cache, 1, SystemClock())
    # A file where the folder of attempts was: every write fails, also for root.
    (tmp_path / "state" / "attempts").rmdir()
    (tmp_path / "state" / "attempts").write_text("")
    outcome, stdout = Runs(runner).run(command(""))
    assert (outcome.category, stdout) == (Category.PLATFORM, b"")
    (tmp_path / "state" / "attempts").unlink()
    runner.close()


class Disk:
    """What ``statvfs`` says, one answer after the other; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
        self._free = list(free)
        monkeypatch.setattr(os, "statvfs", lambda _: self)

    f_frsize = 1

    @property
    def f_bavail(self) -> int:
        return self._free.pop(0) if len(self._free) > 1 else self._free[0]


def test_a_full_disk_takes_no_work(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs.runner.ready()
    Disk(monkeypatch, 1 << 20)
    assert not runs.runner.ready()
    outcome, _ = runs.run(command(writes("hello\n"), extra=HELLO))
    assert outcome.category is Category.PLATFORM
    assert "disk is full" in outcome.detail


def test_what_ended_on_a_full_disk_is_not_believed(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, 1 << 30, 0)
    outcome, _ = runs.run(command(writes("hello\n"), extra=HELLO))
    assert outcome.category is Category.PLATFORM
    assert "ran full while it ran" in outcome.detail


def test_a_host_call_without_a_memory_is_the_programs_trap(runs: Runs) -> None:
    """It was compiled and linked, so it is no invalid program: another attempt may go otherwise."""
    module = wat(
        """(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory 1)
          (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
    )
    outcome, _ = runs.run(module)
    assert (outcome.category, outcome.trap) == (Category.TRAP, "memory_out_of_bounds")
    assert outcome.detail
