"""What guests and our own modules import of the host, in Python.

None of it may raise: what goes wrong in one of ours ends the call afterwards.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from hanzo_compute.adapters.sandbox import binding, hostcalls, poll, shim
from hanzo_compute.adapters.sandbox.binding import Backend, Context, HostFunction, Trapped
from hanzo_compute.adapters.sandbox.running import Running
from hanzo_compute.adapters.sandbox.shim import CONTROL_FD
from hanzo_compute.adapters.sandbox.tray import Tray

IOVECS_MOST: Final = 1024
"""Pieces of one request to the control descriptor: no more than POSIX's IOV_MAX."""
CLOCK_MOST: Final = 2**62
"""Where the logical clock stays for good, ns: what is added to it must still be an i64."""

EBADMSG: Final = 9
EFAULT: Final = 21
EINVAL: Final = 28
EIO: Final = 29


class Imports:
    """The host functions of one sandbox. ``drain`` empties the tray; ``directories`` makes what reads directories."""

    def __init__(
        self,
        backend: Backend,
        stop: threading.Event,
        drain: Callable[[Running], None],
        directories: Callable[[Any], Any],
    ) -> None:
        self._backend = backend
        self._stop = stop
        self._drain = drain
        self._read_directories = directories
        self.now: Running | None = None
        """The call that runs now."""

    def _drained(self, now: Running, context: Context) -> int:
        self._drain(now)
        return 0

    def look(self, now: Running) -> int:
        """A look at the logical clock, ns since the start."""
        if not now.tray_address:
            now.clock += shim.LOOK_NS
            return now.clock
        clock = ctypes.c_uint64.from_address(now.tray_address + Tray.CLOCK)
        clock.value = min(clock.value + shim.LOOK_NS, CLOCK_MOST)
        return clock.value

    def _guarded(self, call: Callable[..., int], failed: int) -> Callable[..., int]:
        def guarded(context: Context, *params: int) -> int:
            now = self.now
            if now is None:
                return failed
            try:
                return call(now, context, *params)
            except BaseException as error:
                now.defect = now.defect or error
                self._stop.set()
                return failed

        return guarded

    def ours(self) -> list[HostFunction]:
        """What our own modules import."""
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

    def _read(self, now: Running, context: Context, at: int, size: int) -> bytes | None:
        if now.memory is None:
            return None
        return binding.read(self._backend, context, now.memory, at, size)

    def _write(self, now: Running, context: Context, at: int, data: bytes) -> bool:
        if now.memory is None:
            return False
        return binding.write(self._backend, context, now.memory, at, data)

    def _poll(self, now: Running, context: Context, at: int, out: int, count: int, ret: int, *clocks: int) -> int:
        if count <= 0:
            return EINVAL
        data = self._read(now, context, at, count * poll.SUBSCRIPTION)
        if data is None:
            return EFAULT
        found = poll.waits(data, *clocks)
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

    def _sleep(self, now: Running, seconds: float) -> bool:
        """Sleep, but not beyond the deadline or a stop; False if it was cut short."""
        left = seconds
        if now.call.deadline is not None:
            left = min(left, now.call.deadline - time.monotonic())
        if left <= 0:
            return seconds <= 0
        return not self._stop.wait(min(left, threading.TIMEOUT_MAX)) and left == seconds

    def _random(self, now: Running, context: Context, at: int, size: int) -> int:
        assert now.stream is not None
        size &= 0xFFFFFFFF
        if now.memory is None or size > self._backend.size(context, now.memory):
            return EFAULT
        return 0 if self._write(now, context, at, now.stream.take(size)) else EFAULT

    def _stdin(self, now: Running, context: Context, iovs: int, count: int, ret: int) -> int:
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

    def _readdir(self, now: Running, context: Context, fd: int, at: int, size: int, cookie: int, ret: int) -> int:
        try:
            names = now.steady.directory(self._backend, now.store, self._read_directories, fd, fresh=cookie == 0)
        except Trapped as trap:
            now.within = trap
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

    # What a guest may ask of its host beyond WASI

    def _control_write(self, now: Running, context: Context, iovs: int, count: int, ret: int) -> int:
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

    def _control_read(self, now: Running, context: Context, iovs: int, count: int, ret: int) -> int:
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

    def _iovecs(self, now: Running, context: Context, iovs: int, count: int) -> list[tuple[int, int]] | int:
        """Addresses and sizes of an array of iovecs, or an errno."""
        if not 0 <= count <= IOVECS_MOST:
            return EINVAL
        data = self._read(now, context, iovs, count * 8)
        return EFAULT if data is None else list(struct.iter_unpack("<II", data))

    def _gather(self, now: Running, context: Context, iovs: int, count: int) -> bytes | int:
        found = self._iovecs(now, context, iovs, count)
        if isinstance(found, int):
            return found
        # The same bytes may be named many times: they are counted before they are copied.
        if sum(size for _, size in found) > now.call.bounds.host_bytes:
            return EINVAL
        pieces = [self._read(now, context, at, size) for at, size in found]
        return EFAULT if None in pieces else b"".join(piece or b"" for piece in pieces)

    def offered(self) -> list[HostFunction]:
        """What a guest may import beyond WASI."""
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

        def called(now: Running, context: Context, *params: int) -> int:
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
