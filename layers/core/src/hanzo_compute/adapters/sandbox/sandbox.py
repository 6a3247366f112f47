"""Runs modules, each call in a store of its own: nothing of one call is left to the next.

A sandbox belongs to one thread, which needs 4 MiB of stack or more, and has its engine to itself. Some other thread
calls :meth:`~hanzo_compute.adapters.sandbox.engine.Engine.check` every few milliseconds, or nothing ends at its
deadline.
"""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Any, Final

import wasmtime

from hanzo_compute.adapters.sandbox import binding, shim
from hanzo_compute.adapters.sandbox.binding import (
    FUEL_UNLIMITED,
    HostFunction,
    Limits,
    Refused,
    Trapped,
)
from hanzo_compute.adapters.sandbox.call import EPOCH_NS, Call, Report
from hanzo_compute.adapters.sandbox.engine import Engine, said
from hanzo_compute.adapters.sandbox.imports import Imports
from hanzo_compute.adapters.sandbox.running import PAGE, Loaded, Running
from hanzo_compute.adapters.sandbox.tray import Tray

TABLE_ELEMENTS: Final = 1_000_000
LEAST_S: Final = 0.0005
"""What is shorter takes no millisecond: the clock of a thread's CPU is a system call."""
FUEL_EXACT: Final = (None, "unreachable", "out_of_fuel")
"""Traps (None: no trap) that leave the store with an exact fuel count. On others what was used since the last
call is lost in a register (bytecodealliance/wasmtime#13802): a busy loop that was interrupted would seem free."""


class Sandbox:
    """Runs one call at a time, on one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._backend = engine.backend
        self._owner: int | None = None
        self._now: Running | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._alive: list[Any] = []
        self._limits: dict[int, Limits] = {}
        raw = engine.engine
        self._wards: dict[bool, wasmtime.Module] = {}
        self._nothing: wasmtime.Module | None = None
        self._imports = Imports(self._backend, self._stop, self._drain, self._read_directories)
        offered = self._imports.offered()
        self._linker = self._linked(offered)
        """What a guest may import."""
        self._inner = self._linked([*offered, *self._imports.ours()])
        """What our own modules import."""
        gate = shim.gate([(each.name, each.params, each.result) for each in offered])
        self._gate = self._inner.instantiate_pre(wasmtime.Module(raw, gate))
        self._reader: wasmtime.InstancePre | None = None

    def link(self, module: wasmtime.Module) -> None:
        """See whether a module's imports are here, with their types. Raises wasmtime.WasmtimeError."""
        self._linker.instantiate_pre(module)

    def _linked(self, functions: list[HostFunction]) -> wasmtime.Linker:
        linker = wasmtime.Linker(self._engine.engine)
        linker.define_wasi()
        for function in functions:
            self._backend.define(linker, function, self._alive)
        return linker

    # From other threads

    def stop(self) -> None:
        """End the call that runs now as soon as may be: its sleep and its code, but no other host call."""
        self._engine.stop()
        self._stop.set()

    def flush(self, *, own: bool = False) -> None:
        """Hand on the output that has waited since the last flush; ``own``: all of it, on the guest's own thread.

        What a program does and is charged does not depend on it: its regions are emptied when they are full.
        """
        with self._lock:
            now = self._now
            if now is None or not now.tray_address:
                return
            for index in (0, 1):
                waiting = ctypes.c_uint32.from_address(now.tray_address + Tray.WAITING[index]).value
                # Only what was there a tick ago has arrived for certain, as another processor sees it.
                upto = waiting if own else min(waiting, now.seen[index])
                if upto > now.taken[index]:
                    try:
                        self._hand_on(now, index, now.taken[index], upto)
                    except OSError as error:  # the call's, not this thread's
                        now.defect = now.defect or error
                        self.stop()
                        return
                    now.taken[index] = upto
                now.seen[index] = waiting

    # The call

    def run(self, loaded: Loaded, call: Call) -> Report:
        """Run a module to its end.

        Nothing that the module can cause raises. What a sink raises, a full disk above all, ends the call.
        """
        thread = threading.get_ident()
        self._owner = self._owner or thread
        assert self._owner == thread, "a sandbox belongs to one thread"
        bounds, backend = call.bounds, self._backend
        if self._stop.is_set():
            self._stop.clear()
        limits = self._limits.get(bounds.memory_mib)
        if limits is None:
            limits = self._limits[bounds.memory_mib] = Limits(bounds.memory_mib << 20, TABLE_ELEMENTS)
        store = backend.open(self._engine.engine, limits)
        now = Running(call, store)
        if call.host is not None:
            tick = (lambda: self._imports.look(now)) if call.deterministic else None
            call.host.begin(bounds, now.stream, tick)
        self._now = self._imports.now = now
        fuel = None
        if self._engine.metered:
            fuel = FUEL_UNLIMITED if bounds.fuel is None else bounds.fuel
        cpu, began = time.thread_time(), time.monotonic()
        try:
            self._engine.begin(call.deadline, lambda: backend.arm(store, 1, fuel))
            report = self._attempt(now, loaded)
            wall = time.monotonic() - began
            if wall >= LEAST_S:
                report.cpu_ms = round((time.thread_time() - cpu) * 1000)
                report.wall_ms = round(wall * 1000)
            self._finish(now, loaded, report, fuel)
        finally:
            self._engine.end()
            if now.tray is None:
                self._now = self._imports.now = None
            else:
                with self._lock:  # nobody may be taking its output when its store goes
                    self._now = self._imports.now = None
            backend.close(store)
        if now.defect is not None:
            raise now.defect
        return report

    def _attempt(self, now: Running, loaded: Loaded) -> Report:
        started, lacking = False, loaded.lacking[now.call.entry]
        if lacking:
            return Report("invalid", detail=lacking)
        try:
            instance = self._instantiate(now, loaded)
            started = True
            output = self._enter(now, loaded, instance)
            return Report("exit", exit_code=0, output=output)
        except Trapped as trap:
            code = self._exit_code(now)
            if code is not None:
                return Report("exit", exit_code=code)
            trap = now.within or trap
            name = "interrupt" if now.cut else trap.code or "host_error"
            where = f" in {' < '.join(trap.functions)}" if trap.functions else ""
            said_so = str(trap) if trap.code is None else name.replace("_", " ")
            return Report("trap", trap=name, detail=f"{said_so}{where}")
        except wasmtime.WasmtimeError as error:
            message = said(error)
            if "Cannot allocate memory" in message:
                # The pool maps a memory before it asks whether the store may have as much.
                if not started and binding.fits(now.call.bounds.memory_mib << 20):
                    return Report("oom", detail=f"what it begins with exceeds {now.call.bounds.memory_mib} MiB")
                raise MemoryError(f"this machine has no memory for it: {message}") from None
            if started or "wasm backtrace" in str(error):  # a start function ran
                return Report("trap", trap="host_error", detail=f"a host call failed: {message}")
            kind = "oom" if "exceeds memory limits" in message or "memory minimum size" in message else "invalid"
            return Report(kind, detail=message)
        except Refused as refused:
            return Report("trap", trap="bad_response", detail=str(refused))

    def _instantiate(self, now: Running, loaded: Loaded) -> Any:
        backend, store = self._backend, now.store
        if not loaded.wasi:
            pre = loaded.pre.get(self)
            if pre is None:
                pre = loaded.pre[self] = self._linker.instantiate_pre(loaded.module)
            instance = backend.preinstantiate(store, pre)
            if loaded.memory:
                now.memory = backend.export(store, instance, "memory")
            return instance
        call = now.call
        backend.wasi(store, self._wasi(call))
        gate = backend.preinstantiate(store, self._gate)
        now.tray = backend.export(store, gate, "tray")
        self._set_up(now)
        imports = backend.exports(store, gate, loaded.names)
        if None in imports:
            module, name = loaded.imports[imports.index(None)]
            raise wasmtime.WasmtimeError(f"unknown import: `{module}::{name}` has not been defined")
        instance = backend.instantiate(store, loaded.module, imports)
        if loaded.memory:
            now.memory = backend.export(store, instance, "memory")
            if call.image is not None:
                call.image.put(backend.address(backend.context(store), now.memory))
        self._ward(now, gate)
        return instance

    def _ward(self, now: Running, gate: Any) -> None:
        """Give the gate its functions. They are another module for each profile."""
        backend, store = self._backend, now.store
        deterministic = now.call.deterministic
        module = self._wards.get(deterministic)
        if module is None:
            text = shim.ward(deterministic=deterministic)
            module = self._wards[deterministic] = wasmtime.Module(self._engine.engine, text)
        memory = now.memory
        if memory is None:  # it can still exit; whatever would touch its memory traps
            self._nothing = self._nothing or wasmtime.Module(self._engine.engine, shim.NOTHING)
            memory = backend.export(store, backend.instantiate(store, self._nothing, []), "memory")
        backend.instantiate(store, module, [memory, now.tray, *backend.exports(store, gate, ("ward", "behind"))])

    def _enter(self, now: Running, loaded: Loaded, instance: Any) -> bytes:
        backend, store = self._backend, now.store
        if now.call.entry == "command":
            backend.call(store, backend.export(store, instance, "_start"), (), (), None)
            return b""
        if "_initialize" in loaded.entries:
            backend.call(store, backend.export(store, instance, "_initialize"), (), (), None)
        return backend.exchange(store, instance, now.memory, now.call.stdin, now.call.bounds.output)

    # What a call has and leaves

    def _wasi(self, call: Call) -> wasmtime.WasiConfig:
        config = wasmtime.WasiConfig()
        config.argv = call.argv
        config.env = list(call.env.items())
        if not call.deterministic:  # how much one read of wasmtime's gives is up to its threads: see Imports._stdin
            if call.stdin_path is not None:
                config.stdin_file = call.stdin_path
            elif call.stdin:
                self._backend.stdin(config, call.stdin)
        for folder in call.folders:
            config.preopen_dir(folder.host, folder.guest, fs_mutable=folder.writable)
        return config

    def _set_up(self, now: Running) -> None:
        bounds = now.call.bounds
        now.prepare()
        address = self._backend.address(self._backend.context(now.store), now.tray)
        for at, value in (
            (Tray.MOST[0], bounds.output),
            (Tray.MOST[1], bounds.output),
            (Tray.OPEN_MOST, bounds.open_files),
            (Tray.FILES_MOST, bounds.scratch_files),
        ):
            ctypes.c_uint32.from_address(address + at).value = value
        ctypes.c_uint64.from_address(address + Tray.SCRATCH_MOST).value = bounds.scratch
        ctypes.c_uint64.from_address(address + Tray.EPOCH).value = EPOCH_NS
        owners = bytes([shim.STDIN_OWNER if now.call.deterministic else 0, shim.STDOUT, shim.STDERR])
        ctypes.memmove(address + Tray.OWNERS, owners, 3)
        with self._lock:
            now.tray_address = address

    def _word(self, now: Running, at: int) -> int:
        return ctypes.c_uint32.from_address(now.tray_address + at).value if now.tray_address else 0

    def _exit_code(self, now: Running) -> int | None:
        return self._word(now, Tray.CODE) if self._word(now, Tray.EXITED) else None

    def _finish(self, now: Running, loaded: Loaded, report: Report, fuel: int | None) -> None:
        address = now.tray_address
        backend, bounds, host = self._backend, now.call.bounds, now.call.host
        if address:
            self._drain(now)
            with self._lock:
                now.tray_address = 0
            report.stdout, report.stderr = bytes(now.kept[0]), bytes(now.kept[1])
            flags = ctypes.c_uint32.from_address(address + Tray.FLAGS).value
            report.limits = [name for bit, name in shim.LIMITS.items() if flags & bit]
            for index, name in enumerate(shim.COUNTED):
                count = ctypes.c_uint32.from_address(address + Tray.COUNTERS + 4 * index).value
                if count:
                    report.counters[name] = count
        if host is not None:
            report.limits += sorted(host.reached)
            report.counters |= {f"hzc.{name}": count for name, count in host.counts.items()}
        if fuel is not None and report.trap in FUEL_EXACT:
            report.fuel = fuel - backend.fuel(now.store)
        if now.memory is not None:
            report.memory_bytes = backend.size(backend.context(now.store), now.memory)
            # At a maximum of its own, no growth was refused on our account.
            at_own = loaded.memory_most is not None and report.memory_bytes >= loaded.memory_most
            if now.call.keeps:
                whole = binding.read(backend, backend.context(now.store), now.memory, 0, report.memory_bytes)
                now.call.kept = bytearray(whole or b"")
            report.at_memory_limit = report.memory_bytes + PAGE > bounds.memory_mib << 20 and not at_own

    def _hand_on(self, now: Running, index: int, begin: int, end: int) -> None:
        data = ctypes.string_at(now.tray_address + Tray.REGIONS[index] + begin, end - begin)
        if now.call.sink is not None:
            now.call.sink(index + 1, data)
        else:
            now.kept[index] += data

    def _drain(self, now: Running) -> None:
        """Hand on all output that waits, and empty the regions. On the guest's own thread."""
        with self._lock:
            if not now.tray_address:
                return
            for index in (0, 1):
                waiting = ctypes.c_uint32.from_address(now.tray_address + Tray.WAITING[index])
                if waiting.value > now.taken[index]:
                    self._hand_on(now, index, now.taken[index], waiting.value)
                waiting.value = now.taken[index] = now.seen[index] = 0

    def _read_directories(self, store: Any) -> Any:
        """An instance that does."""
        if self._reader is None:
            self._reader = self._inner.instantiate_pre(wasmtime.Module(self._engine.engine, shim.READER))
        return self._backend.preinstantiate(store, self._reader)
