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
from hanzo_compute.adapters.sandbox.binding import (
    FUEL_UNLIMITED,
    Context,
    Extern,
    HostFunction,
    Limits,
    Refused,
    Trapped,
)
from hanzo_compute.adapters.sandbox.call import EPOCH_NS, Call, Report, Stream
from hanzo_compute.adapters.sandbox.engine import Engine, said
from hanzo_compute.adapters.sandbox.shim import CONTROL_FD, WASI, Tray
from hanzo_compute.adapters.sandbox.steady import Steady

PAGE: Final = 65536
IOVECS_MOST: Final = 1024
"""Pieces of one request to the control descriptor: no more than POSIX's IOV_MAX."""
CLOCK_MOST: Final = 2**62
"""Where the logical clock stays for good, ns: what is added to it must still be an i64."""
TABLE_ELEMENTS: Final = 1_000_000
LEAST_S: Final = 0.0005
"""What is shorter takes no millisecond: the clock of a thread's CPU is a system call."""
FUEL_EXACT: Final = (None, "unreachable", "out_of_fuel")
"""Traps (None: no trap) that leave the store with an exact fuel count. On others what was used since the last
call is lost in a register (bytecodealliance/wasmtime#13802): a busy loop that was interrupted would seem free."""

EBADMSG: Final = 9
EFAULT: Final = 21
EINVAL: Final = 28
EIO: Final = 29


ENTRIES: Final[dict[str, tuple[list[str], list[str]]]] = {
    "_start": ([], []),
    "_initialize": ([], []),
    "alloc": (["i32"], ["i32"]),
    "handle": (["i32", "i32"], ["i64"]),
}
"""Functions by which a module is entered: parameters and results. They are called without wasmtime's checks."""


@dataclass(eq=False)
class Loaded:
    """A module in an engine."""

    module: wasmtime.Module
    imports: list[tuple[str, str]]
    entries: frozenset[str]
    """Which of ENTRIES it exports with their types."""
    memory: bool
    """Whether it exports a memory as ``memory``."""
    memory_most: int | None = None
    """Bytes that its memory says it has at most."""
    pre: dict[Sandbox, wasmtime.InstancePre] = field(default_factory=dict)
    """Linked for a sandbox, if it needs no WASI."""
    wasi: bool = field(init=False)
    """Whether it needs WASI."""
    asks: bool = field(init=False)
    """Whether it can call host functions: those of hzc, or WASI's control descriptor."""
    names: list[str] = field(init=False)
    """What its imports are called at the gate."""
    lacking: dict[str, str] = field(init=False)
    """Why it cannot be entered so, for each way."""

    def __post_init__(self) -> None:
        modules = {module for module, _ in self.imports}
        self.names = [name if module == WASI else f"{module}.{name}" for module, name in self.imports]
        self.wasi = WASI in modules
        self.asks = self.wasi or hostcalls.MODULE in modules
        command, reactor = "_start" in self.entries, self.memory and {"alloc", "handle"} <= self.entries
        self.lacking = {
            "command": "" if command else "it exports no function _start () -> ()",
            "reactor": "" if reactor else "it does not export memory, alloc (i32) -> i32 and handle (i32, i32) -> i64",
        }

    @classmethod
    def of(cls, module: wasmtime.Module) -> Loaded:
        """Look at a module once."""
        imports = [(each.module, each.name or "") for each in module.imports]
        kinds = {each.name: each.type for each in module.exports}
        entries = frozenset(name for name, wanted in ENTRIES.items() if typed(kinds.get(name)) == wanted)
        memory = kinds.get("memory")
        if not isinstance(memory, wasmtime.MemoryType):
            return cls(module, imports, entries, memory=False)
        most = memory.limits.max
        return cls(module, imports, entries, memory=True, memory_most=None if most is None else most * PAGE)


def typed(kind: object) -> tuple[list[str], list[str]] | None:
    """Parameters and results of a function's type; None for any other."""
    if not isinstance(kind, wasmtime.FuncType):
        return None
    return [str(each) for each in kind.params], [str(each) for each in kind.results]


class _Now:
    """The call that a sandbox runs now."""

    memory: Extern | None = None
    tray: Extern | None = None
    tray_address = 0
    stream: Stream | None = None
    clock = 0
    answer = b""
    reader: Any = None
    cut = False
    """It was in a sleep when its time was over."""
    defect: BaseException | None = None

    def __init__(self, call: Call, store: Any) -> None:
        self.call = call
        self.store = store
        if call.deterministic:
            self.stream = Stream(call.seed)

    def prepare(self) -> None:
        """What a call with WASI has besides."""
        self.taken = [0, 0]
        self.seen = [0, 0]
        self.kept = [bytearray(), bytearray()]
        self.steady = Steady(self.call)


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
        self._limits: dict[int, Limits] = {}
        raw = engine.engine
        self._wards: dict[bool, wasmtime.Module] = {}
        self._nothing: wasmtime.Module | None = None
        offered = self._hzc_functions()
        self._linker = self._linked(offered)
        """What a guest may import."""
        self._inner = self._linked([*offered, *self._host_functions()])
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
        now = _Now(call, store)
        if call.host is not None:
            tick = (lambda: self._look(now)) if call.deterministic else None
            call.host.begin(bounds, now.stream, tick)
        self._now = now
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
                self._now = None
            else:
                with self._lock:  # nobody may be taking its output when its store goes
                    self._now = None
            backend.close(store)
        if now.defect is not None:
            raise now.defect
        return report

    def _attempt(self, now: _Now, loaded: Loaded) -> Report:
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
        except Refused as refused:
            return Report("trap", trap="bad_response", detail=str(refused))

    def _instantiate(self, now: _Now, loaded: Loaded) -> Any:
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
        self._ward(now, gate)
        return instance

    def _ward(self, now: _Now, gate: Any) -> None:
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

    def _enter(self, now: _Now, loaded: Loaded, instance: Any) -> bytes:
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
        if call.deterministic:
            pass  # how much one read of wasmtime's gives is up to its threads: see _stdin
        elif call.stdin_path is not None:
            config.stdin_file = call.stdin_path
        elif call.stdin:
            self._backend.stdin(config, call.stdin)
        for folder in call.folders:
            config.preopen_dir(folder.host, folder.guest, fs_mutable=folder.writable)
        return config

    def _set_up(self, now: _Now) -> None:
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

    def _word(self, now: _Now, at: int) -> int:
        return ctypes.c_uint32.from_address(now.tray_address + at).value if now.tray_address else 0

    def _exit_code(self, now: _Now) -> int | None:
        return self._word(now, Tray.CODE) if self._word(now, Tray.EXITED) else None

    def _finish(self, now: _Now, loaded: Loaded, report: Report, fuel: int | None) -> None:
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
        return [
            HostFunction("host", name, *shim.HOST[name], self._guarded(call, EIO))
            for name, call in (
                ("poll", self._poll),
                ("drain", self._drained),
                ("random", self._random),
                ("readdir", self._readdir),
                ("stdin", self._stdin),
                ("control_write", self._control_write),
                ("control_read", self._control_read),
            )
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

    def _stdin(self, now: _Now, context: Context, iovs: int, count: int, ret: int) -> int:
        """Fill the buffers of a read as far as standard input reaches."""
        wanted = self._iovecs(now, context, iovs, count)
        if isinstance(wanted, int):
            return wanted
        done = 0
        for at, size in wanted:
            piece = now.steady.peek(size)
            if not piece:
                continue
            if not self._write(now, context, at, piece):
                return EFAULT
            done += now.steady.skip(len(piece))
        return 0 if self._write(now, context, ret, _u32(done)) else EFAULT

    def _readdir(self, now: _Now, context: Context, fd: int, at: int, size: int, cookie: int, ret: int) -> int:
        try:
            names = now.steady.directory(self._backend, now.store, self._read_directories, fd, fresh=cookie == 0)
        except Trapped:
            now.cut = True
            return shim.EINTR
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

    def _read_directories(self, store: Any) -> Any:
        """An instance that does."""
        if self._reader is None:
            self._reader = self._inner.instantiate_pre(wasmtime.Module(self._engine.engine, shim.READER))
        return self._backend.preinstantiate(store, self._reader)

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


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


assert CONTROL_FD > Tray.OWNED
