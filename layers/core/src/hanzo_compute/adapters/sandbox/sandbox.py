"""Runs modules, each call in a store of its own: nothing of one call is left to the next.

A sandbox belongs to one thread, which needs 4 MiB of stack or more, and has its engine to itself. Some other thread
calls :meth:`~hanzo_compute.adapters.sandbox.engine.Engine.check` every few milliseconds, or nothing ends at its
deadline.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import wasmtime

from hanzo_compute.adapters.sandbox import binding, hostcalls, poll, shim
from hanzo_compute.adapters.sandbox.binding import Context, Extern, HostFunction, Limits, Trapped
from hanzo_compute.adapters.sandbox.call import EPOCH_NS, Call, Report, Stream
from hanzo_compute.adapters.sandbox.engine import Engine, said
from hanzo_compute.adapters.sandbox.shim import CONTROL_FD, WASI, Tray

PAGE: Final = 65536
IOVECS_MOST: Final = 1024
"""Pieces of one request to the control descriptor: no more than POSIX's IOV_MAX."""
CLOCK_MOST: Final = 2**62
"""Where the logical clock stays for good, ns: what is added to it must still be an i64."""
TABLE_ELEMENTS: Final = 1_000_000
FUEL_UNLIMITED: Final = 2**63 - 1
FUEL_EXACT: Final = (None, "unreachable", "out_of_fuel")
"""Traps (None: no trap) that leave the store with an exact fuel count. On others what was used since the last
call is lost in a register (bytecodealliance/wasmtime#13802): a busy loop that was interrupted would seem free."""

EBADMSG: Final = 9
EFAULT: Final = 21
EINVAL: Final = 28
EIO: Final = 29

_DIRENT: Final = struct.Struct("<QQIB3x")


@dataclass(eq=False)
class Loaded:
    """A module in an engine."""

    module: wasmtime.Module
    imports: list[tuple[str, str]]
    functions: frozenset[str]
    """Names of functions that it exports."""
    memory: bool = False
    """Whether its export ``memory`` is one. Anything else of that name must never be taken for a memory."""
    memory_most: int | None = None
    """Bytes that its own memory says it has at most."""
    pre: dict[Sandbox, wasmtime.InstancePre] = field(default_factory=dict)
    """Linked for a sandbox, if it needs no WASI."""

    @classmethod
    def of(cls, module: wasmtime.Module) -> Loaded:
        """Look at a module once."""
        imports = [(each.module, each.name or "") for each in module.imports]
        kinds = {each.name: each.type for each in module.exports}
        functions = frozenset(name for name, kind in kinds.items() if isinstance(kind, wasmtime.FuncType))
        memory = kinds.get("memory")
        if not isinstance(memory, wasmtime.MemoryType):
            return cls(module, imports, functions)
        most = memory.limits.max
        return cls(module, imports, functions, True, None if most is None else most * PAGE)

    @property
    def wasi(self) -> bool:
        """Whether it needs WASI."""
        return any(module == WASI for module, _ in self.imports)


class _Now:
    """The call that a sandbox runs now."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.store: Any = None
        self.memory: Extern | None = None
        self.tray: Extern | None = None
        self.tray_address = 0
        self.taken = [0, 0]
        self.seen = [0, 0]
        self.kept = [bytearray(), bytearray()]
        self.stream = Stream(call.seed) if call.deterministic else None
        self.clock = 0
        self.answer = b""
        self.directories: dict[int, list[bytes]] = {}
        self.reader: Any = None
        self.cut = False
        """It was in a sleep when its time was over."""
        self.within: Trapped | None = None
        """How a host function that runs code of its own was ended: its stack, fuel and time are the guest's."""
        self.defect: BaseException | None = None


class Sandbox:
    """Runs one call at a time, on one thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._backend = engine.backend
        self._owner: int | None = None
        self._now: _Now | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._alive: list[Any] = []
        raw = engine.engine
        self._gate = wasmtime.Module(raw, shim.gate())
        self._wards: dict[bool, wasmtime.Module] = {}
        self._reader: wasmtime.Module | None = None
        self._nothing: wasmtime.Module | None = None
        self._native = wasmtime.Linker(raw)
        self._native.define_wasi()
        self._host = wasmtime.Linker(raw)
        for function in [*self._host_functions(), *self._hzc_functions()]:
            self._backend.define(self._host, function, self._alive)

    def link(self, module: wasmtime.Module) -> None:
        """See whether a module's imports are here, with their types. Raises wasmtime.WasmtimeError."""
        linker = wasmtime.Linker(self._engine.engine)
        linker.define_wasi()
        for function in self._hzc_functions():
            self._backend.define(linker, function, self._alive)
        linker.instantiate_pre(module)

    # From other threads

    def stop(self) -> None:
        """End the call that runs now as soon as may be: its sleep and its code, but no other host call."""
        self._engine.stop()
        self._stop.set()

    def flush(self) -> None:
        """Hand on the output that has waited since the last flush."""
        with self._lock:
            now = self._now
            if now is None or not now.tray_address:
                return
            for index in (0, 1):
                waiting = ctypes.c_uint32.from_address(now.tray_address + Tray.WAITING[index]).value
                # Only what was there a tick ago has arrived for certain, as another processor sees it.
                upto = min(waiting, now.seen[index])
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
        if self._owner is None:
            self._owner = threading.get_ident()
        assert self._owner == threading.get_ident(), "a sandbox belongs to one thread"
        now = _Now(call)
        bounds = call.bounds
        self._stop.clear()
        if call.host is not None:
            tick = (lambda: self._look(now)) if call.deterministic else None
            call.host.begin(bounds, now.stream, tick)
        store = now.store = self._backend.open(self._engine.engine, Limits(bounds.memory_mib << 20, TABLE_ELEMENTS))
        self._now = now
        fuel = None
        if self._engine.metered:
            fuel = FUEL_UNLIMITED if bounds.fuel is None else bounds.fuel
        cpu, began = time.thread_time(), time.monotonic()
        try:
            self._engine.begin(call.deadline, lambda: self._backend.arm(store, 1, fuel))
            report = self._attempt(now, loaded)
            report.cpu_ms = round((time.thread_time() - cpu) * 1000)
            report.wall_ms = round((time.monotonic() - began) * 1000)
            self._finish(now, loaded, report, fuel)
        finally:
            self._engine.end()
            with self._lock:
                self._now = None
            self._backend.close(store)
        if now.defect is not None:
            raise now.defect
        return report

    def _attempt(self, now: _Now, loaded: Loaded) -> Report:
        started = False
        needed = ["_start"] if now.call.entry == "command" else ["alloc", "handle"]
        missing = [name for name in needed if name not in loaded.functions]
        if missing:
            return Report(
                "invalid", detail=f"it exports no function {missing[0]}, with which a {now.call.entry} begins"
            )
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
            if started:
                return Report("trap", trap="host_error", detail=f"a host call failed: {message}")
            kind = "oom" if "exceeds memory limits" in message or "memory minimum size" in message else "invalid"
            return Report(kind, detail=message)
        except _Refused as refused:
            return Report("trap", trap="bad_response", detail=str(refused))

    def _instantiate(self, now: _Now, loaded: Loaded) -> Any:
        backend, store = self._backend, now.store
        if not loaded.wasi:
            pre = loaded.pre.get(self)
            if pre is None:
                pre = loaded.pre[self] = self._host.instantiate_pre(loaded.module)
            instance = backend.preinstantiate(store, pre)
            now.memory = backend.export(store, instance, "memory") if loaded.memory else None
            return instance
        call = now.call
        backend.wasi(store, self._wasi(call))
        gate = backend.instantiate(store, self._gate, [])
        now.tray = backend.export(store, gate, "tray")
        self._set_up(now)
        instance = backend.instantiate(
            store, loaded.module, [self._import(now, gate, *each) for each in loaded.imports]
        )
        now.memory = backend.export(store, instance, "memory") if loaded.memory else None
        self._ward(now, gate)
        return instance

    def _import(self, now: _Now, gate: Any, module: str, name: str) -> Extern:
        backend = self._backend
        if module == WASI and name in shim.SIGNATURES:
            found = backend.export(now.store, gate, name)
        else:
            found = backend.linked(now.store, self._native if module == WASI else self._host, module, name)
        if found is None:
            raise wasmtime.WasmtimeError(f"unknown import: `{module}::{name}` has not been defined")
        return found

    def _ward(self, now: _Now, gate: Any) -> None:
        """Give the gate its functions. They are another module for each profile."""
        backend, store = self._backend, now.store
        deterministic = now.call.deterministic
        module = self._wards.get(deterministic)
        if module is None:
            module = self._wards[deterministic] = wasmtime.Module(
                self._engine.engine, shim.ward(deterministic=deterministic)
            )
        memory = now.memory
        if memory is None:  # it can still exit; whatever would touch its memory traps
            self._nothing = self._nothing or wasmtime.Module(self._engine.engine, shim.NOTHING)
            memory = backend.export(store, backend.instantiate(store, self._nothing, []), "memory")
        given = {"memory": memory, "tray": now.tray, "ward": backend.export(store, gate, "ward")}
        imports = []
        for each in module.imports:
            name = each.name or ""
            if each.module == WASI:
                imports.append(backend.linked(store, self._native, WASI, name))
            elif each.module == "host":
                imports.append(backend.linked(store, self._host, "host", name))
            else:
                imports.append(given[name])
        backend.instantiate(store, module, imports)

    def _enter(self, now: _Now, loaded: Loaded, instance: Any) -> bytes:
        backend, store = self._backend, now.store
        if now.call.entry == "command":
            start = backend.export(store, instance, "_start")
            backend.call(store, start, (), (), None)
            return b""
        if "_initialize" in loaded.functions:
            backend.call(store, backend.export(store, instance, "_initialize"), (), (), None)
        data, memory = now.call.stdin, now.memory
        at = backend.call(store, backend.export(store, instance, "alloc"), (len(data),), ("i32",), "i32")
        context = backend.context(store)
        if memory is None or not binding.write(backend, context, memory, at, data):
            raise _Refused(f"alloc({len(data)}) gave {at & 0xFFFFFFFF}, which does not lie in its memory")
        handle = backend.export(store, instance, "handle")
        packed = backend.call(store, handle, (at, len(data)), ("i32", "i32"), "i64")
        at, size = packed >> 32 & 0xFFFFFFFF, packed & 0xFFFFFFFF
        if size > now.call.bounds.output:
            raise _Refused(f"handle returned {size} bytes, over the bound of {now.call.bounds.output}")
        found = binding.read(backend, context, memory, at, size)
        if found is None:
            raise _Refused(f"handle returned {size} bytes at {at}, which do not lie in its memory")
        return found

    # What a call has and leaves

    def _wasi(self, call: Call) -> wasmtime.WasiConfig:
        config = wasmtime.WasiConfig()
        config.argv = call.argv
        config.env = list(call.env.items())
        if call.stdin_path is not None:
            config.stdin_file = call.stdin_path
        elif call.stdin:
            self._backend.stdin(config, call.stdin)
        for folder in call.folders:
            config.preopen_dir(folder.host, folder.guest, fs_mutable=folder.writable)
        return config

    def _set_up(self, now: _Now) -> None:
        bounds = now.call.bounds
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
        ctypes.memmove(address + Tray.OWNERS, b"\0\1\2", 3)
        with self._lock:
            now.tray_address = address

    def _word(self, now: _Now, at: int) -> int:
        return ctypes.c_uint32.from_address(now.tray_address + at).value if now.tray_address else 0

    def _exit_code(self, now: _Now) -> int | None:
        return self._word(now, Tray.CODE) if self._word(now, Tray.EXITED) else None

    def _finish(self, now: _Now, loaded: Loaded, report: Report, fuel: int | None) -> None:
        self._drain(now)
        with self._lock:
            address, now.tray_address = now.tray_address, 0
        backend, bounds, host = self._backend, now.call.bounds, now.call.host
        if address:
            flags = ctypes.c_uint32.from_address(address + Tray.FLAGS).value
            report.limits = [name for bit, name in shim.LIMITS.items() if flags & bit]
            for index, name in enumerate(shim.COUNTED):
                count = ctypes.c_uint32.from_address(address + Tray.COUNTERS + 4 * index).value
                if count:
                    report.counters[name] = count
        if host is not None:
            report.limits += sorted(host.reached)
            report.counters |= {f"hzc.{name}": count for name, count in host.counts.items()}
        report.stdout, report.stderr = bytes(now.kept[0]), bytes(now.kept[1])
        if fuel is not None and report.trap in FUEL_EXACT:
            report.fuel = fuel - backend.fuel(now.store)
        if now.memory is not None:
            report.memory_bytes = backend.size(backend.context(now.store), now.memory)
            # At a maximum of its own, no growth was refused on our account.
            at_own = loaded.memory_most is not None and report.memory_bytes >= loaded.memory_most
            report.at_memory_limit = report.memory_bytes + PAGE > bounds.memory_mib << 20 and not at_own

    def _hand_on(self, now: _Now, index: int, begin: int, end: int) -> None:
        data = ctypes.string_at(now.tray_address + Tray.REGIONS[index] + begin, end - begin)
        if now.call.sink is not None:
            now.call.sink(index + 1, data)
        else:
            now.kept[index] += data

    def _drain(self, now: _Now) -> None:
        """Hand on all output that waits, and empty the regions. On the guest's own thread."""
        with self._lock:
            if not now.tray_address:
                return
            for index in (0, 1):
                waiting = ctypes.c_uint32.from_address(now.tray_address + Tray.WAITING[index])
                if waiting.value > now.taken[index]:
                    self._hand_on(now, index, now.taken[index], waiting.value)
                waiting.value = now.taken[index] = now.seen[index] = 0

    def _drained(self, now: _Now, context: Context) -> int:
        self._drain(now)
        return 0

    def _look(self, now: _Now) -> int:
        """A look at the logical clock, ns since the start."""
        if not now.tray_address:
            now.clock += shim.LOOK_NS
            return now.clock
        clock = ctypes.c_uint64.from_address(now.tray_address + Tray.CLOCK)
        clock.value = min(clock.value + shim.LOOK_NS, CLOCK_MOST)
        return clock.value

    # Host functions. None of them may raise: what goes wrong in one of ours ends the call afterwards.

    def _guarded(self, call: Callable[..., int], failed: int) -> Callable[..., int]:
        def guarded(context: Context, *params: int) -> int:
            now = self._now
            if now is None:
                return failed
            try:
                return call(now, context, *params)
            except BaseException as error:
                now.defect = now.defect or error
                self._stop.set()
                return failed

        return guarded

    def _host_functions(self) -> list[HostFunction]:
        def made(name: str, params: str, result: str | None, call: Callable[..., int]) -> HostFunction:
            return HostFunction("host", name, tuple(params.split()), result, self._guarded(call, EIO))

        return [
            made("poll", "i32 i32 i32 i32 i64 i64", "i32", self._poll),
            made("drain", "", None, self._drained),
            made("random", "i32 i32", "i32", self._random),
            made("readdir", "i32 i32 i32 i64 i32", "i32", self._readdir),
            made("control_write", "i32 i32 i32", "i32", self._control_write),
            made("control_read", "i32 i32 i32", "i32", self._control_read),
        ]

    def _read(self, now: _Now, context: Context, at: int, size: int) -> bytes | None:
        if now.memory is None:
            return None
        return binding.read(self._backend, context, now.memory, at, size)

    def _write(self, now: _Now, context: Context, at: int, data: bytes) -> bool:
        if now.memory is None:
            return False
        return binding.write(self._backend, context, now.memory, at, data)

    def _poll(self, now: _Now, context: Context, at: int, out: int, count: int, ret: int, real: int, mono: int) -> int:
        if count <= 0:
            return EINVAL
        data = self._read(now, context, at, count * poll.SUBSCRIPTION)
        if data is None:
            return EFAULT
        found = poll.waits(data, real, mono)
        passed = poll.first_ns(found)
        if now.call.deterministic:
            clock = ctypes.c_uint64.from_address(now.tray_address + Tray.CLOCK)
            clock.value = min(clock.value + passed, CLOCK_MOST)
        elif not self._sleep(now, passed / 1e9):
            now.cut = True
            return shim.EINTR
        made = poll.events(found, passed)
        done = self._write(now, context, out, made)
        return 0 if done and self._write(now, context, ret, _u32(len(made) // poll.EVENT)) else EFAULT

    def _sleep(self, now: _Now, seconds: float) -> bool:
        """Sleep, but not beyond the deadline or a stop; False if it was cut short."""
        left = seconds
        if now.call.deadline is not None:
            left = min(left, now.call.deadline - time.monotonic())
        if left <= 0:
            return seconds <= 0
        return not self._stop.wait(min(left, threading.TIMEOUT_MAX)) and left == seconds

    def _random(self, now: _Now, context: Context, at: int, size: int) -> int:
        assert now.stream is not None
        size &= 0xFFFFFFFF
        if now.memory is None or size > self._backend.size(context, now.memory):
            return EFAULT
        return 0 if self._write(now, context, at, now.stream.take(size)) else EFAULT

    def _readdir(self, now: _Now, context: Context, fd: int, at: int, size: int, cookie: int, ret: int) -> int:
        names = self._directory(now, fd, fresh=cookie == 0)
        if isinstance(names, int):
            return names
        size &= 0xFFFFFFFF
        made = b""
        for number, entry in enumerate(names[max(cookie, 0) :], start=max(cookie, 0) + 1):
            if len(made) >= size:
                break
            made += number.to_bytes(8, "little") + entry
        made = made[:size]
        done = self._write(now, context, at, made)
        return 0 if done and self._write(now, context, ret, _u32(len(made))) else EFAULT

    def _directory(self, now: _Now, fd: int, *, fresh: bool) -> list[bytes] | int:
        """A directory's entries in order of names, each from its inode on, which is hidden; or an errno."""
        if not fresh and fd in now.directories:
            return now.directories[fd]
        backend, store = self._backend, now.store
        if now.reader is None:
            self._reader = self._reader or wasmtime.Module(self._engine.engine, shim.READER)
            native = backend.linked(store, self._native, WASI, "fd_readdir")
            now.reader = backend.instantiate(store, self._reader, [native])
        read = backend.export(store, now.reader, "read")
        memory = backend.export(store, now.reader, "memory")
        found: list[tuple[bytes, bytes]] = []
        cookie = 0
        while True:
            try:
                used = backend.call(store, read, (fd, cookie), ("i32", "i64"), "i64")
            except Trapped as trap:
                now.within = trap
                return shim.EINTR
            if used < 0:
                return -used
            data = binding.read(backend, backend.context(store), memory, shim.READER_AT, used) or b""
            at, before = 0, len(found)
            while at + _DIRENT.size <= len(data):
                following, _, size, kind = _DIRENT.unpack_from(data, at)
                name = data[at + _DIRENT.size : at + _DIRENT.size + size]
                if len(name) < size:
                    break
                found.append((name, _DIRENT.pack(0, 0, size, kind)[8:] + name))
                at += _DIRENT.size + size
                cookie = following
            if used < PAGE or len(found) == before:
                break
        now.directories[fd] = [entry for _, entry in sorted(found)]
        return now.directories[fd]

    # What a guest may ask of its host beyond WASI

    def _control_write(self, now: _Now, context: Context, iovs: int, count: int, ret: int) -> int:
        data = self._gather(now, context, iovs, count)
        if isinstance(data, int):
            return data
        wanted = hostcalls.request(data)
        if wanted is None:
            return EBADMSG
        if now.call.host is None:
            status, result = hostcalls.DENIED, b""
        else:
            status, result = now.call.host.call(*wanted)
            if hostcalls.FUNCTIONS[wanted[0]].result == "i64" and not result and status > 0:
                result = now.call.host.call("take", [status])[1]
            if wanted[0] == "kv_get":
                result = now.call.host.version.to_bytes(8, "little", signed=True) + result
        now.answer = status.to_bytes(8, "little", signed=True) + result
        return 0 if self._write(now, context, ret, _u32(len(data))) else EFAULT

    def _control_read(self, now: _Now, context: Context, iovs: int, count: int, ret: int) -> int:
        done = 0
        found = self._iovecs(now, context, iovs, count)
        if isinstance(found, int):
            return found
        for at, size in found:
            piece, now.answer = now.answer[:size], now.answer[size:]
            if not self._write(now, context, at, piece):
                return EFAULT
            done += len(piece)
        return 0 if self._write(now, context, ret, _u32(done)) else EFAULT

    def _iovecs(self, now: _Now, context: Context, iovs: int, count: int) -> list[tuple[int, int]] | int:
        """Addresses and sizes of an array of iovecs, or an errno."""
        if not 0 <= count <= IOVECS_MOST:
            return EINVAL
        data = self._read(now, context, iovs, count * 8)
        return EFAULT if data is None else list(struct.iter_unpack("<II", data))

    def _gather(self, now: _Now, context: Context, iovs: int, count: int) -> bytes | int:
        found = self._iovecs(now, context, iovs, count)
        if isinstance(found, int):
            return found
        # The same bytes may be named many times: they are counted before they are copied.
        if sum(size for _, size in found) > now.call.bounds.host_bytes:
            return EINVAL
        pieces = [self._read(now, context, at, size) for at, size in found]
        return EFAULT if None in pieces else b"".join(piece or b"" for piece in pieces)

    def _hzc_functions(self) -> list[HostFunction]:
        made = []
        for name, shape in hostcalls.FUNCTIONS.items():
            params: list[str] = []
            for kind in shape.params:
                params += {"bytes": ["i32", "i32"], "buffer": ["i32", "i32"], "out": ["i32"]}.get(kind, [kind])
            call = self._guarded(self._hzc(name, shape), hostcalls.UNAVAILABLE)
            made.append(HostFunction(hostcalls.MODULE, name, tuple(params), shape.result, call))
        return made

    def _hzc(self, name: str, shape: hostcalls.Shape) -> Callable[..., int]:
        """The import of a function: pointers in, pointers out."""

        def called(now: _Now, context: Context, *params: int) -> int:
            host = now.call.host
            if host is None:
                return hostcalls.DENIED
            args: list[bytes | int] = []
            out = room = total = 0
            buffer = None
            given = iter(params)
            for kind in shape.params:
                if kind == "bytes":
                    at, size = next(given), next(given) & 0xFFFFFFFF
                    total += size
                    data = self._read(now, context, at, size) if total <= now.call.bounds.host_bytes else None
                    if data is None:
                        return hostcalls.INVALID
                    args.append(data)
                elif kind == "buffer":
                    buffer, room = next(given), next(given) & 0xFFFFFFFF
                    room = min(room, 0 if now.memory is None else self._backend.size(context, now.memory))
                    args.append(room)
                elif kind == "out":
                    out = next(given)
                else:
                    args.append(next(given))
            status, result = host.call(name, args)
            if buffer is not None and result and not self._write(now, context, buffer, result[:room]):
                return hostcalls.INVALID
            if out and not self._write(now, context, out, host.version.to_bytes(8, "little", signed=True)):
                return hostcalls.INVALID
            return status

        return called


class _Refused(Exception):
    """A guest gave something back that cannot be taken."""


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


assert CONTROL_FD > Tray.OWNED
