"""What a guest may ask of its host beyond WASI: the functions of the import module ``hzc``, version 1.

Each function needs its capability; each call counts against the call's budget of calls and bytes. Programs that know
WASI alone (interpreters) reach the same functions by descriptor 1000: one write is one request (the function's name
and a zero byte, then for each argument four bytes of length and the bytes; integers are eight bytes; all little
endian), and what is read afterwards is the answer: eight bytes of status, then the result.

Nothing here raises into the guest's call: a refusal is a negative status.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hanzo_compute.adapters.sandbox.call import EPOCH_NS, Bounds, Stream

MODULE: Final = "hzc"

NOT_FOUND: Final = -1
DENIED: Final = -2
INVALID: Final = -3
CONFLICT: Final = -4
LIMIT: Final = -5
UNAVAILABLE: Final = -6
TIMED_OUT: Final = -7

KEY_MAX: Final = 512
VALUE_MAX: Final = 256 << 10
LOG_MAX: Final = 8192
NAME_MAX: Final = 255
RANDOM_MAX: Final = 64 << 10

_SIGNED: Final = struct.Struct("<q")
_LENGTH: Final = struct.Struct("<I")
LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Shape:
    """A function: its parameters (``bytes``: pointer and length; ``out``: where an i64 goes; ``buffer``: where bytes
    go; ``i32``, ``i64``), its result, and the capability it needs (None: none)."""

    params: tuple[str, ...]
    result: str
    capability: str | None = None


FUNCTIONS: Final[dict[str, Shape]] = {
    "log": Shape(("i32", "bytes"), "i32"),
    "now": Shape((), "i64"),
    "random": Shape(("buffer",), "i32"),
    "take": Shape(("buffer",), "i32"),
    "kv_get": Shape(("bytes", "out"), "i64", "kv"),
    "kv_put": Shape(("bytes", "bytes", "i64"), "i32", "kv"),
    "kv_delete": Shape(("bytes", "i64"), "i32", "kv"),
    "secret": Shape(("bytes",), "i64", "secrets"),
    "http": Shape(("bytes", "bytes"), "i64", "http"),
    "input_size": Shape((), "i64", "input"),
    "input_read": Shape(("i64", "buffer"), "i64", "input"),
    "output": Shape(("bytes", "bytes"), "i64", "outputs"),
}

UNREPEATABLE: Final = frozenset({"kv", "secrets", "http"})
"""Capabilities whose answers are no function of module and input: not in the deterministic profile."""


class Service(Protocol):
    """Who answers the calls that leave the sandbox: ``kv_get`` and its like."""

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """The status and the result; must not raise for anything that a guest can do."""
        ...


class HostCalls:
    """The host functions of one call. ``granted``: names of capabilities."""

    def __init__(
        self,
        granted: frozenset[str],
        service: Service | None,
        log: Callable[[str, str], None] | None = None,
    ) -> None:
        self.granted = granted
        self._service = service
        self._say = log
        self._result = b""
        self._versions = 0
        self._calls_left = 0
        self._bytes_left = 0
        self._stream: Stream | None = None
        self._tick: Callable[[], int] | None = None
        self.reached: set[str] = set()
        self.counts: dict[str, int] = {}
        self.moved = 0

    def begin(self, bounds: Bounds, stream: Stream | None, tick: Callable[[], int] | None) -> None:
        """Before the guest starts. ``stream`` and ``tick``: randomness and the clock of a deterministic call."""
        self._calls_left = bounds.host_calls
        self._bytes_left = bounds.host_bytes
        self._stream = stream
        self._tick = tick

    def call(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """Do what a function does; integers and bytes in, the status and what goes to the guest's buffer out.

        ``buffer`` parameters are given as their size, ``out`` is left out: :attr:`version` has what belongs there.
        """
        shape = FUNCTIONS[name]
        self.counts[name] = self.counts.get(name, 0) + 1
        if shape.capability is not None and shape.capability not in self.granted:
            return DENIED, b""
        self._calls_left -= 1
        if self._calls_left < 0:
            self.reached.add("host_calls")
            return LIMIT, b""
        if not self._pay(sum(len(arg) for arg in args if isinstance(arg, bytes))):
            return LIMIT, b""
        own = getattr(self, f"_{name}", None)
        if own is not None:
            status, result = own(*args)
            return status, result
        return self._outside(name, args)

    @property
    def version(self) -> int:
        """The version of the entry that ``kv_get`` gave last; 0 for none."""
        return self._versions

    def _outside(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        self._result, self._versions = b"", 0
        if self._service is None:
            return UNAVAILABLE, b""
        if name.startswith("kv_") and not (isinstance(args[0], bytes) and 0 < len(args[0]) <= KEY_MAX):
            return INVALID, b""
        if name == "kv_put" and isinstance(args[1], bytes) and len(args[1]) > VALUE_MAX:
            return INVALID, b""
        told: tuple[object, object] = self._service.ask(name, args)
        status, result = told
        if not isinstance(status, int) or not isinstance(result, bytes):
            raise TypeError(f"{name} was answered with {type(status).__name__} and {type(result).__name__}")
        if not self._pay(len(result)):
            return LIMIT, b""
        if status < 0:
            return status, b""
        if name == "kv_get":
            (self._versions,), result = _SIGNED.unpack_from(result), result[8:]
        if name == "input_read":
            return len(result), result
        if FUNCTIONS[name].result == "i64" and name in ("kv_get", "secret", "http"):
            self._result = result
            return len(result), b""
        return status, b""

    def _pay(self, size: int) -> bool:
        self._bytes_left -= size
        self.moved += size
        if self._bytes_left < 0:
            self.reached.add("host_bytes")
            return False
        return True

    def _take(self, size: int) -> tuple[int, bytes]:
        taken, self._result = self._result[:size], self._result[size:]
        return len(taken), taken

    def _now(self) -> tuple[int, bytes]:
        return EPOCH_NS + self._tick() if self._tick is not None else time.time_ns(), b""

    def _random(self, size: int) -> tuple[int, bytes]:
        if not 0 <= size <= RANDOM_MAX:
            return INVALID, b""
        return 0, os.urandom(size) if self._stream is None else self._stream.take(size)

    def _log(self, level: int, text: bytes) -> tuple[int, bytes]:
        if not 0 <= level < len(LEVELS) or len(text) > LOG_MAX:
            return INVALID, b""
        if self._say is not None:
            self._say(LEVELS[level], text.decode("utf-8", "backslashreplace"))
        return 0, b""


def fits(name: str, args: Sequence[bytes | int]) -> bool:
    """Whether a question that a worker passes on is one that a guest can ask."""
    shape = FUNCTIONS.get(name)
    if shape is None or shape.capability is None:
        return False
    kinds = [kind for kind in shape.params if kind != "out"]
    return len(args) == len(kinds) and all(
        isinstance(arg, bytes) == (kind == "bytes") for arg, kind in zip(args, kinds, strict=True)
    )


def request(data: bytes) -> tuple[str, list[bytes | int]] | None:
    """What a write to the control descriptor asks for; None if that cannot be read."""
    name, zero, rest = data.partition(b"\0")
    text = name.decode("ascii", "replace")
    shape = FUNCTIONS.get(text)
    if not zero or shape is None:
        return None
    args: list[bytes | int] = []
    at = 0
    for kind in shape.params:
        if kind == "out":
            continue
        if at + 4 > len(rest):
            return None
        (size,) = _LENGTH.unpack_from(rest, at)
        value = rest[at + 4 : at + 4 + size]
        if len(value) != size:
            return None
        at += 4 + size
        if kind == "bytes":
            args.append(value)
        elif size == 8:
            args.append(_SIGNED.unpack(value)[0])
        else:
            return None
    return (text, args) if at == len(rest) else None
