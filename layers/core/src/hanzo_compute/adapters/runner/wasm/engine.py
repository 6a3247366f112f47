"""wasmtime: how it is configured, and one run of a module in it. Used in worker processes only.

No host function is written in Python: the binding keeps an exception raised in one in a process-wide
variable, where another call can pick it up. Output goes to files for a like reason: its callbacks run on
foreign threads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import wasmtime

PAGE: Final = 65536
FUEL_UNLIMITED: Final = 2**63 - 1
WASM_STACK: Final = 512 << 10
"""Stack of the guest, bytes. Over wasmtime's async stack of 2 MiB, making an engine aborts the process."""

SETTINGS: Final[dict[str, Any]] = {
    "consume_fuel": True,
    "epoch_interruption": True,
    "max_wasm_stack": WASM_STACK,
    # One memory of 32-bit addresses: its 4 GiB of address space are reserved, so that RLIMIT_AS can be exact.
    "memory_reservation": 4 << 30,
    "wasm_multi_memory": False,
    "wasm_memory64": False,
    "wasm_custom_page_sizes": False,
    "wasm_threads": False,
    "shared_memory": False,
    "wasm_gc": False,
    "wasm_function_references": False,
    "wasm_exceptions": False,
    "wasm_stack_switching": False,
    "wasm_component_model": False,
    "gc_support": False,
}

FUEL_EXACT: Final = (None, "unreachable", "out_of_fuel")
"""Traps (None: no trap) that leave the store with an exact fuel count. On others what was used since the last
call is lost in a register (bytecodealliance/wasmtime#13802): a busy loop that was interrupted would seem free."""

STORE_LIMITS: Final = {"instances": 2, "memories": 1, "tables": 4, "table_elements": 1_000_000}


EXIT_MODULE: Final = """
(module
  (global (export "exited") (mut i32) (i32.const 0))
  (global (export "code") (mut i32) (i32.const 0))
  (func (export "proc_exit") (param i32)
    (global.set 0 (i32.const 1)) (global.set 1 (local.get 0)) unreachable))
"""
"""WASI's proc_exit. wasmtime's own turns codes over 125 into an error that does not tell the code."""


@dataclass(frozen=True, slots=True)
class Guest:
    """One run: a WASI command with its arguments, environment, folder of files, and limits."""

    directory: str
    argv: list[str]
    env: dict[str, str]
    memory_mib: int
    fuel: int | None


@dataclass(slots=True)
class Report:
    """How a run ended: ``exit``, ``trap``, ``oom`` (it could not start in its memory) or ``invalid``."""

    kind: str
    exit_code: int | None = None
    trap: str | None = None
    detail: str = ""
    wall_ms: int = 0
    cpu_ms: int = 0
    fuel: int | None = None
    """None when it is not known: see ``FUEL_EXACT``."""
    memory_bytes: int = 0
    at_memory_limit: bool = False


class InvalidModule(Exception):
    """The module cannot be compiled or linked; the message says why."""


def version() -> str:
    """The engine's name and version, for outcomes."""
    return f"wasmtime {importlib.metadata.version('wasmtime')}"


def tag() -> str:
    """All that a compiled module depends on besides its source."""
    return "\n".join([version(), repr(sorted(SETTINGS.items())), platform.machine(), _cpu_features()])


def _cpu_features() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.processor()


class Engine:
    """One wasmtime engine with WASI preview 1; runs one guest at a time."""

    def __init__(self) -> None:
        import wasmtime

        config = wasmtime.Config()
        for name, value in SETTINGS.items():
            setattr(config, name, value)
        self._engine = wasmtime.Engine(config)
        self._exit = wasmtime.Module(self._engine, EXIT_MODULE)

    def compile(self, wasm: bytes) -> bytearray:
        """Compile a module that can run here, to an artefact. Raises InvalidModule."""
        import wasmtime

        if wasm[:4] != b"\0asm":
            raise InvalidModule("it does not begin with the four bytes of a WASM module: \\0asm")
        try:
            module = wasmtime.Module(self._engine, wasm)
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(f"it does not compile: {_first_lines(error)}") from None
        self._check(module)
        return module.serialize()

    def _check(self, module: wasmtime.Module) -> None:
        import wasmtime

        starts = [export.type for export in module.exports if export.name == "_start"]
        start = starts[0] if starts else None
        if not isinstance(start, wasmtime.FuncType):
            raise InvalidModule("it exports no function _start: build it as a WASI preview 1 command")
        if start.params or start.results:
            raise InvalidModule("its _start takes parameters or returns results; a WASI command's does neither")
        try:
            self._linker().instantiate_pre(module)
        except wasmtime.WasmtimeError as error:
            raise InvalidModule(f"it cannot be linked, WASI preview 1 is all there is: {_first_lines(error)}") from None

    def load(self, path: str) -> wasmtime.Module | None:
        """Map an artefact that the caller has authenticated; None if this engine cannot use it."""
        import wasmtime

        try:
            return wasmtime.Module.deserialize_file(self._engine, path)
        except wasmtime.WasmtimeError:
            return None

    def interrupt(self) -> None:
        """End the guest that runs now, from another thread, unless it waits inside a host call."""
        self._engine.increment_epoch()

    def run(self, module: wasmtime.Module, guest: Guest) -> Report:
        """Run a guest on this thread, which needs 4 MiB of stack or more."""
        import wasmtime

        with wasmtime.Store(self._engine) as store:
            fuel = FUEL_UNLIMITED if guest.fuel is None else guest.fuel
            store.set_fuel(fuel)
            store.set_epoch_deadline(1)
            store.set_limits(memory_size=guest.memory_mib << 20, **STORE_LIMITS)
            store.set_wasi(_wasi(guest))
            cpu = time.thread_time()
            report, memory = self._call(store, module)
            report.cpu_ms = round((time.thread_time() - cpu) * 1000)
            if report.trap in FUEL_EXACT:
                report.fuel = fuel - store.get_fuel()
            if memory is not None:
                report.memory_bytes = memory.data_len(store)
                most = memory.type(store).limits.max
                # At a maximum of its own, no growth was refused on our account.
                report.at_memory_limit = report.memory_bytes + PAGE > guest.memory_mib << 20 and (
                    most is None or report.memory_bytes < most * PAGE
                )
            return report

    def _linker(self) -> wasmtime.Linker:
        import wasmtime

        linker = wasmtime.Linker(self._engine)
        linker.define_wasi()
        return linker

    def _call(self, store: wasmtime.Store, module: wasmtime.Module) -> tuple[Report, wasmtime.Memory | None]:
        import wasmtime

        memory = None
        started = False
        linker = self._linker()
        linker.allow_shadowing = True
        ending = linker.instantiate(store, self._exit).exports(store)
        linker.define(store, "wasi_snapshot_preview1", "proc_exit", ending["proc_exit"])
        try:
            exports = linker.instantiate(store, module).exports(store)
            found = exports.get("memory")
            memory = found if isinstance(found, wasmtime.Memory) else None
            start = exports["_start"]
            assert isinstance(start, wasmtime.Func)
            started = True
            start(store)
            return Report("exit", exit_code=0), memory
        except wasmtime.Trap as trap:
            if _global(store, ending["exited"]):
                return Report("exit", exit_code=_global(store, ending["code"]) & 0xFFFFFFFF), memory
            return _trapped(trap), memory
        except wasmtime.WasmtimeError as error:
            message = _first_lines(error)
            if started:  # a host call could not do what it was asked, as with a buffer beyond all memory
                return Report("trap", trap="host_error", detail=f"a host call failed: {message}"), memory
            kind = "oom" if "exceeds memory limits" in message else "invalid"
            return Report(kind, detail=message), memory


def _global(store: wasmtime.Store, item: object) -> int:
    import wasmtime

    assert isinstance(item, wasmtime.Global)
    value: int = item.value(store)
    return value


def _wasi(guest: Guest) -> wasmtime.WasiConfig:
    import wasmtime

    folder = Path(guest.directory)
    wasi = wasmtime.WasiConfig()
    wasi.argv = guest.argv
    wasi.env = list(guest.env.items())
    wasi.stdin_file = str(folder / "stdin")
    wasi.stdout_file = str(folder / "stdout")
    wasi.stderr_file = str(folder / "stderr")
    wasi.preopen_dir(str(folder / "in"), "/in", fs_mutable=False)
    return wasi


def _trapped(trap: wasmtime.Trap) -> Report:
    code = trap.trap_code
    names = [frame.func_name or f"function {frame.func_index}" for frame in trap.frames[:3]]
    where = f" in {' < '.join(names)}" if names else ""
    if code is None:
        return Report("trap", trap="host_error", detail=f"{_first_lines(trap)}{where}")
    return Report("trap", trap=code.name.lower(), detail=f"{code.name.lower().replace('_', ' ')}{where}")


def _first_lines(error: Exception) -> str:
    """The parts of wasmtime's error chain that say something, without its backtrace, in one line."""
    lines = []
    for line in str(error).splitlines():
        text = line.strip()
        if text.startswith(("wasm backtrace", "error while executing", "Stack backtrace")):
            continue
        if text and text != "Caused by:":
            lines.append(text)
    return "; ".join(lines)[:1000]


def sha256_file(path: str) -> tuple[bytes, str]:
    """The bytes of a file and their SHA-256, hex."""
    data = Path(path).read_bytes()
    return data, hashlib.sha256(data).hexdigest()
