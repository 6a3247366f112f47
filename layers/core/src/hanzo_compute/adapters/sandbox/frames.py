"""What a supervisor and its worker say to each other: frames over a Unix socket, without the socket.

A frame is five bytes of head (its kind, and its length, little endian) and a body. What opens, stops or goes wrong is
JSON; calls and their results, of which there are many, are packed.

    supervisor → worker    L load (a descriptor rides along)   P prepare   C calls   M a call, with memory   S stop
                           A answer
    worker → supervisor    R ready   O output   Q ask          D done                B done, in memory

The memory that comes with a call: see :mod:`.area`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

LOAD: Final = ord("L")
PREPARE: Final = ord("P")
CALLS: Final = ord("C")
LENT: Final = ord("M")
STOP: Final = ord("S")
ANSWER: Final = ord("A")
READY: Final = ord("R")
OUTPUT: Final = ord("O")
ASK: Final = ord("Q")
DONE: Final = ord("D")
BACK: Final = ord("B")

READ: Final = 64 << 10
"""Bytes to read at a time: room for more is mapped and unmapped each time by the C library, which takes longer than
the call behind a short frame."""
FRAME_MAX: Final = 96 << 20
"""Longest frame. The supervisor believes nothing of a worker: a guest may have taken it over."""
JSON_MAX: Final = 4 << 20
"""Longest JSON: what it becomes takes many times as much memory."""
ARGUMENTS_MAX: Final = 8
"""Most arguments of a host function: more than any has."""

_HEAD: Final = struct.Struct("<BI")
_CALL: Final = struct.Struct("<IIiI")
_DONE: Final = struct.Struct("<IBqII")
_STATUS: Final = struct.Struct("<q")
_LENGTH: Final = struct.Struct("<I")

EXITED: Final = 0
"""Kind of a result: the call ended with exit code 0, within its limits; all else is told in JSON."""
TOLD: Final = 1
NO_FUEL: Final = -1


class BadFrame(Exception):
    """What came is no frame; its sender cannot be trusted any more."""


class Invocation(NamedTuple):
    """One call: its number, the template that says what and how, its time in ms (-1: none), and its input."""

    number: int
    template: int
    timeout_ms: int
    data: bytes


class Result(NamedTuple):
    """What a call came to: its output, fuel if it was counted, its time, and the report of one that ended badly."""

    number: int
    kind: int
    fuel: int
    wall_us: int
    data: bytes


def frame(kind: int, body: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(kind, len(body)) + body


def _joined(kind: int, parts: list[bytes]) -> bytes:
    """One frame of many parts, each copied once."""
    return b"".join([_HEAD.pack(kind, sum(map(len, parts))), *parts])


def told(kind: int, body: dict[str, Any]) -> bytes:
    """A frame of JSON."""
    return frame(kind, json.dumps(body).encode())


def heard(body: bytes) -> dict[str, Any]:
    """The JSON of a frame. Raises BadFrame."""
    if len(body) > JSON_MAX:
        raise BadFrame(f"JSON of {len(body)} bytes")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise BadFrame("a frame is not JSON") from None
    if not isinstance(found, dict):
        raise BadFrame("a frame is no object")
    return found


def calls(batch: Sequence[Invocation]) -> bytes:
    """A frame of calls."""
    parts = []
    for each in batch:
        parts += [_CALL.pack(each.number, each.template, each.timeout_ms, len(each.data)), each.data]
    return _joined(CALLS, parts)


def called(body: bytes) -> Iterator[Invocation]:
    """The calls of a frame."""
    at = 0
    while at < len(body):
        number, template, timeout_ms, size = _CALL.unpack_from(body, at)
        at += _CALL.size
        yield Invocation(number, template, timeout_ms, body[at : at + size])
        at += size


def lent(call: Invocation, *, inside: bool) -> bytes:
    """A frame of one call that brings the memory; its data may be ``inside`` of that."""
    head = _CALL.pack(call.number, call.template, call.timeout_ms, len(call.data))
    return frame(LENT, head if inside else head + call.data)


def borrowed(body: bytes) -> tuple[Invocation, int]:
    """The call of such a frame, and how much of its data is in the memory: all or nothing."""
    number, template, timeout_ms, size = _CALL.unpack_from(body)
    data = body[_CALL.size :]
    return Invocation(number, template, timeout_ms, data), size - len(data)


def done(results: Sequence[Result]) -> bytes:
    """A frame of results."""
    parts = []
    for each in results:
        parts += [_DONE.pack(each.number, each.kind, each.fuel, each.wall_us, len(each.data)), each.data]
    return _joined(DONE, parts)


def results(body: bytes, most: int) -> list[Result]:
    """The results of a frame: ``most`` at most, of which the least is 21 bytes, and a frame may be long. Raises
    BadFrame."""
    found: list[Result] = []
    at = 0
    try:
        while at < len(body):
            if len(found) == most:
                raise BadFrame(f"more than {most} results")
            number, kind, fuel, wall_us, size = _DONE.unpack_from(body, at)
            at += _DONE.size
            if at + size > len(body):
                raise BadFrame("a result is cut short")
            found.append(Result(number, kind, fuel, wall_us, body[at : at + size]))
            at += size
    except struct.error:
        raise BadFrame("a result is cut short") from None
    return found


def given_back(result: Result) -> bytes:
    """A frame of one result, whose data is in the memory."""
    return frame(BACK, _DONE.pack(result.number, result.kind, result.fuel, result.wall_us, len(result.data)))


def back(body: bytes) -> tuple[Result, int]:
    """The result of such a frame, and how much data it has in the memory. Raises BadFrame."""
    if len(body) != _DONE.size:
        raise BadFrame("a result is not one")
    number, kind, fuel, wall_us, size = _DONE.unpack(body)
    return Result(number, kind, fuel, wall_us, b""), size


def ask(name: str, args: Sequence[bytes | int]) -> bytes:
    """A frame that asks for a host function."""
    parts = [name.encode(), b"\0"]
    for arg in args:
        value = arg if isinstance(arg, bytes) else arg.to_bytes(8, "little", signed=True)
        parts += [b"b" if isinstance(arg, bytes) else b"i", _LENGTH.pack(len(value)), value]
    return frame(ASK, b"".join(parts))


def asked(body: bytes) -> tuple[str, list[bytes | int]]:
    """The host function that is asked for, and its arguments. Raises BadFrame."""
    name, _, rest = body.partition(b"\0")
    args: list[bytes | int] = []
    at = 0
    while at < len(rest):
        if at + 5 > len(rest) or len(args) == ARGUMENTS_MAX:
            raise BadFrame("an argument is cut short, or too many")
        (size,) = _LENGTH.unpack_from(rest, at + 1)
        value = rest[at + 5 : at + 5 + size]
        if len(value) != size or (rest[at : at + 1] == b"i" and size != 8):
            raise BadFrame("an argument is cut short")
        args.append(value if rest[at : at + 1] == b"b" else int.from_bytes(value, "little", signed=True))
        at += 5 + size
    return name.decode("ascii", "replace"), args


def answer(status: int, result: bytes) -> bytes:
    """A frame with the answer to that."""
    return frame(ANSWER, _STATUS.pack(status) + result)


def answered(body: bytes) -> tuple[int, bytes]:
    """The status and the result of an answer."""
    return _STATUS.unpack_from(body)[0], body[_STATUS.size :]


class Inbox:
    """Bytes come in as they come, frames go out."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._at = 0
        """Where in the first piece the next frame begins."""
        self._size = 0
        self._wanted = _HEAD.size
        """Bytes without which it need not be looked at."""

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._pieces.append(data)
        self._size += len(data)

    def take(self) -> tuple[int, bytes] | None:
        """The next whole frame: its kind and its body. Raises BadFrame."""
        if self._size < self._wanted:
            return None
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        data, begin = self._pieces[0], self._at + _HEAD.size
        kind, size = _HEAD.unpack_from(data, self._at)
        if size > FRAME_MAX:
            raise BadFrame(f"a frame of {size} bytes")
        self._wanted = _HEAD.size + size
        if self._size < self._wanted:
            return None
        self._size -= self._wanted
        self._wanted = _HEAD.size
        if self._size:
            self._at = begin + size
        else:
            self._pieces, self._at = [], 0
        return kind, data[begin : begin + size]
