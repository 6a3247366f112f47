"""Logs of measured events: TCG PC Client Platform Firmware Profile 1.06, section 10, and UEFI CCEL of the same form.

A log proves nothing by itself: what its events extend must be what a quote says of the registers. Only digests are
extended, so the data of an event is a hint and no evidence, unless it is hashed to the event's digest.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hanzo_compute.attestation.checks import Unreadable

LOG_MAX: Final = 1024 * 1024
"""Bytes of a log; firmware reserves 64 KiB and more for one, and fills the rest with 0xff or zeros."""

SHA1: Final = 0x0004
SHA256: Final = 0x000B
SHA384: Final = 0x000C
SHA512: Final = 0x000D
"""Identifiers of algorithms, TCG Algorithm Registry 1.34, table 3."""
EV_NO_ACTION: Final = 0x00000003
"""Type of an event that informs and is extended nowhere."""

_SPEC_ID: Final = b"Spec ID Event03\0"
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_HASHES: Final[Mapping[int, Callable[..., Any]]] = {
    SHA1: hashlib.sha1,
    SHA256: hashlib.sha256,
    SHA384: hashlib.sha384,
    SHA512: hashlib.sha512,
}
_ALGORITHMS_MAX: Final = 16
_LEGACY: Final = struct.Struct("<II20sI")
_HEAD: Final = struct.Struct("<III")
_U32: Final = struct.Struct("<I")
_U16: Final = struct.Struct("<H")
_ALGORITHM: Final = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a log."""

    index: int
    """Of the register: a PCR's number; in a CCEL 0 is MRTD and i + 1 is RTMR i."""
    type: int
    digests: Mapping[int, bytes]
    """What was extended, by the algorithm's identifier."""
    data: bytes = field(repr=False)


def parse(log: bytes) -> tuple[Event, ...]:
    """The events of a log, its header among them, in order.

    A log whose first event is no ``Spec ID Event03`` is of the old form, with SHA-1 digests alone.

    Raises:
        Unreadable: it is larger than :data:`LOG_MAX`, cut off, or of another form.
    """
    if len(log) > LOG_MAX:
        raise Unreadable(f"the event log has {len(log)} bytes; the limit is {LOG_MAX}")
    first, at = _legacy(log, 0)
    events = [first]
    sizes = _header(first.data) if first.type == EV_NO_ACTION and first.data.startswith(_SPEC_ID) else None
    # Behind the last event is only the filling of the log's area; no event is made of these two bytes alone.
    end = len(log.rstrip(b"\x00\xff"))
    while at < end:
        event, at = _legacy(log, at) if sizes is None else _agile(log, at, sizes)
        events.append(event)
    return tuple(events)


def replay(events: Iterable[Event], algorithm: int) -> dict[int, bytes]:
    """What the registers hold after all events, by index; a register without events is left out: it was not extended.

    Raises:
        Unreadable: the algorithm cannot be replayed, or an event has no digest of it.
    """
    hasher = _HASHES.get(algorithm)
    if hasher is None:
        raise Unreadable(f"digests of algorithm 0x{algorithm:04x} cannot be replayed")
    size = hasher().digest_size
    registers: dict[int, bytes] = {}
    for number, event in enumerate(events):
        if event.type == EV_NO_ACTION:
            _startup(event, registers, size)
            continue
        digest = event.digests.get(algorithm)
        if digest is None:
            raise Unreadable(f"event {number} of the log has no digest of algorithm 0x{algorithm:04x}")
        registers[event.index] = hasher(registers.get(event.index, bytes(size)) + digest).digest()
    return registers


def _startup(event: Event, registers: dict[int, bytes], size: int) -> None:
    """PCR 0 starts with the locality of TPM2_Startup in its last byte (section 10.4.5.3)."""
    if not event.data.startswith(_STARTUP_LOCALITY) or event.index != 0:
        return
    if len(event.data) != len(_STARTUP_LOCALITY) + 1 or 0 in registers:
        raise Unreadable(
            "the event of the startup locality is not of its form, or comes after events that extend PCR 0"
        )
    registers[0] = bytes(size - 1) + event.data[-1:]


def _header(data: bytes) -> dict[int, int]:
    """Sizes of digests by algorithm, from TCG_EfiSpecIdEvent (section 10.4.5.1)."""
    # Signature 16, platform class 4, versions and errata 3, size of UINTN 1.
    (count,) = _U32.unpack(_take(data, 24, 4))
    if not 1 <= count <= _ALGORITHMS_MAX:
        raise Unreadable(f"the header of the event log names {count} algorithms")
    sizes: dict[int, int] = {}
    for number in range(count):
        algorithm, size = _ALGORITHM.unpack(_take(data, 28 + 4 * number, 4))
        known = _HASHES.get(algorithm)
        if algorithm in sizes or not 1 <= size <= 64 or (known and known().digest_size != size):
            raise Unreadable(f"the header of the event log gives algorithm 0x{algorithm:04x} twice or a wrong size")
        sizes[algorithm] = size
    end = 28 + 4 * count
    (vendor,) = _take(data, end, 1)
    if len(data) != end + 1 + vendor:
        raise Unreadable(f"the header of the event log has {len(data)} bytes, not {end + 1 + vendor}")
    return sizes


def _legacy(log: bytes, at: int) -> tuple[Event, int]:
    """TCG_PCClientPCREvent (section 10.2.1)."""
    index, kind, digest, size = _LEGACY.unpack(_take(log, at, _LEGACY.size))
    data = _take(log, at + _LEGACY.size, size)
    return Event(index, kind, {SHA1: digest}, data), at + _LEGACY.size + size


def _agile(log: bytes, at: int, sizes: Mapping[int, int]) -> tuple[Event, int]:
    """TCG_PCR_EVENT2 (section 10.2.2)."""
    index, kind, count = _HEAD.unpack(_take(log, at, _HEAD.size))
    at += _HEAD.size
    if not 1 <= count <= len(sizes):
        raise Unreadable(f"an event of the log has {count} digests; its header names {len(sizes)} algorithms")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        (algorithm,) = _U16.unpack(_take(log, at, 2))
        if algorithm not in sizes or algorithm in digests:
            raise Unreadable(f"an event of the log has a digest of algorithm 0x{algorithm:04x}, unnamed or twice")
        digests[algorithm] = _take(log, at + 2, sizes[algorithm])
        at += 2 + sizes[algorithm]
    (size,) = _U32.unpack(_take(log, at, 4))
    data = _take(log, at + 4, size)
    return Event(index, kind, digests, data), at + 4 + size


def _take(data: bytes, at: int, size: int) -> bytes:
    part = data[at : at + size]
    if len(part) != size:
        raise Unreadable(f"the event log is cut off: {size} bytes are missing at {at}")
    return part
