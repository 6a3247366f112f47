"""``poll_oneoff`` of clocks: subscriptions in, events out (WASI preview 1; structures of 48 and 32 bytes)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

SUBSCRIPTION: Final = 48
EVENT: Final = 32
CLOCK: Final = 0
REALTIME: Final = 0
MONOTONIC: Final = 1
ABSOLUTE: Final = 1
EINVAL: Final = 28
NEVER: Final = 2**64 - 1
MOST: Final = 4096
"""Subscriptions of one poll."""

_HEAD: Final = struct.Struct("<QB")
_CLOCK: Final = struct.Struct("<I4xQQH")
_EVENT: Final = struct.Struct("<QHB5xQH6x")


@dataclass(frozen=True, slots=True)
class Wait:
    """One subscription: what it is known by, its kind, and when it is due in ns from now; None if it is refused."""

    userdata: int
    kind: int
    due_ns: int | None


def waits(data: bytes, real_ns: int, monotonic_ns: int) -> list[Wait]:
    """The subscriptions of a poll. One of a descriptor is due at once."""
    found = []
    for at in range(0, len(data), SUBSCRIPTION):
        userdata, kind = _HEAD.unpack_from(data, at)
        due: int | None = 0
        if kind == CLOCK:
            clock, timeout, _, flags = _CLOCK.unpack_from(data, at + 16)
            if clock not in (REALTIME, MONOTONIC):
                due = None
            elif flags & ABSOLUTE:
                due = max(0, timeout - (real_ns if clock == REALTIME else monotonic_ns))
            else:
                due = timeout
        found.append(Wait(userdata, kind, due))
    return found


def events(found: list[Wait], passed_ns: int) -> bytes:
    """The events of what is due once ``passed_ns`` have passed, or is refused."""
    made = []
    for wait in found:
        if wait.due_ns is None:
            made.append(_EVENT.pack(wait.userdata, EINVAL, wait.kind, 0, 0))
        elif wait.due_ns <= passed_ns:
            made.append(_EVENT.pack(wait.userdata, 0, wait.kind, 1 if wait.kind != CLOCK else 0, 0))
    return b"".join(made)


def first_ns(found: list[Wait]) -> int:
    """How long to wait for the first event."""
    return min((wait.due_ns or 0 for wait in found), default=NEVER)
