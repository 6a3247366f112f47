"""Small WASM programs, leases for them, and a runner that runs them to the end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.ports import Handle, Lease, LogEntry

IMPORTS = """
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
"""

SLEEP_30_S = """
  (i64.store (i32.const 280) (i64.const 30000000000))
  (drop (call $poll (i32.const 256) (i32.const 400) (i32.const 1) (i32.const 500)))
"""
"""WAT: one poll_oneoff that waits 30 seconds on the relative clock."""

SPIN = "(loop $again (br $again))"


def wat(text: str) -> bytes:
    """The module that a text in WAT describes."""
    import wasmtime

    return bytes(wasmtime.wat2wasm(text))


def command(body: str, *, memory: str = "1", extra: str = "") -> bytes:
    """A WASI command whose _start is ``body`` (WAT), with $exit, $write, $read and $poll imported."""
    return wat(f'(module {IMPORTS} (memory (export "memory") {memory}) {extra} (func (export "_start") {body}))')


def writes(data: str, stream: int = 1) -> str:
    """WAT that writes ``data``, which the module must hold at address 1024."""
    return (
        f"(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const {len(data)}))"
        f"(drop (call $write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 8)))"
    )


def eventually(condition: Callable[[], Any], what: str, bound_s: float = 120) -> Any:
    """Poll until ``condition`` is true, and return what it returned."""
    deadline = time.monotonic() + bound_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {bound_s} s: {what}")


def children(pid: int) -> set[int]:
    """Process ids of the living children of a process."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX":
            found.add(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    """True while a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Runs:
    """A runner under test, and the jobs that it was given."""

    _numbers = itertools.count(1)

    def __init__(self, runner: WasmRunner) -> None:
        self.runner = runner

    def lease(
        self,
        source: dict[str, str],
        *,
        timeout_ms: int = 60_000,
        timeout_is_deadline: bool = False,
        log_limit: int = 1 << 20,
        **spec: Any,
    ) -> Lease:
        """A lease of a new job."""
        resources: dict[str, Any] = {name: spec.pop(name) for name in ("memory_mib", "fuel") if name in spec}
        resources = {"memory_mib": 64, "timeout_s": 60, **resources}
        body = {"source": source, "args": [], "env": {}, "resources": resources, "log_limit": log_limit, **spec}
        job = f"j-{next(self._numbers):026d}"
        return Lease(job, 1, "wasm", body, 30_000, timeout_ms, timeout_is_deadline)

    def start(self, program: bytes | str, stdin: bytes = b"", **options: Any) -> Handle:
        """Start a module, or Python source, as a new job."""
        if isinstance(program, str):
            lease = self.lease({"code": program, "language": "python"}, **options)
            return self.runner.start(lease, module=None, stdin=stdin)
        lease = self.lease({"module": "b1-" + "0" * 64}, **options)
        return self.runner.start(lease, module=program, stdin=stdin)

    def end(self, handle: Handle) -> tuple[Outcome, bytes]:
        """Wait for the end; the outcome and standard output."""
        assert self.runner.poll(handle, 240), "the attempt did not end"
        collected = self.runner.collect(handle)
        return collected.outcome, collected.stdout

    def run(self, program: bytes | str, stdin: bytes = b"", **options: Any) -> tuple[Outcome, bytes]:
        """Start and wait for the end."""
        return self.end(self.start(program, stdin, **options))

    def entries(self, handle: Handle) -> list[LogEntry]:
        """The whole log that there is now."""
        found: list[LogEntry] = []
        cursor = 0
        while True:
            entries, cursor = self.runner.logs(handle, cursor)
            if not entries:
                return found
            found += entries

    def says(self, handle: Handle, text: str) -> None:
        """Wait until the attempt's log has ``text``."""
        eventually(lambda: any(text in entry.text for entry in self.entries(handle)), f"{text!r} in the log")
