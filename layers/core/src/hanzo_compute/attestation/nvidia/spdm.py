"""Reports of NVIDIA's devices: an SPDM 1.1 GET_MEASUREMENTS request, its response, and a signature over both.

Layouts are those of DMTF DSP0274 1.1.1 sections 10.11.1 and 10.11.2, all numbers little-endian; what the opaque data
holds is NVIDIA's: fields of type (u16), size (u16) and value. 37 bytes of request come first, 96 of signature last.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hanzo_compute.attestation.checks import Unreadable

REPORT_MAX: Final = 64 * 1024
"""Bytes of a report; real ones have about 4 KiB."""
SIGNATURE_SIZE: Final = 96
_REQUEST_SIZE: Final = 37
_VERSION: Final = 0x11
_GET_MEASUREMENTS: Final = 0xE0
_MEASUREMENTS: Final = 0x60
_SIGNATURE_REQUESTED: Final = 0x01
_ALL_BLOCKS: Final = 0xFF
_DMTF: Final = 0x01
_SLOT: Final = 0x0F
_NONCE_SIZE: Final = 32
_HEADER: Final = struct.Struct("<BBHBH")
"""Of a block: index, specification and size; of the value in it: type and size."""
_VALUE_HEADER: Final = 3


class Field(IntEnum):
    """Types of the fields of the opaque data that are read here; others are kept and signed all the same."""

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    CHIP_SKU = 15
    PROJECT = 17
    PROJECT_SKU = 18
    FWID = 20
    PROTECTED_PCIE = 21
    OPAQUE_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36


@dataclass(frozen=True, slots=True)
class Report:
    """A report, taken apart and not yet believed."""

    signed: bytes
    """What the signature is over: request and response before it."""
    signature: bytes
    """r ‖ s, 48 bytes each, big-endian."""
    nonce: bytes
    """32 bytes of the request: what the verifier asked with."""
    response_nonce: bytes
    """32 bytes that the device drew."""
    slot: int
    """Of the certificate chain that it is signed under."""
    measurements: dict[int, bytes]
    """Values by the index of their block, from 1."""
    opaque: dict[int, bytes]
    """Values by their type."""

    def text(self, field: Field) -> str | None:
        """A field of ASCII that NULs end; None where there is none, or no text."""
        value = self.opaque.get(field)
        if value is None:
            return None
        try:
            text = value.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            return None
        return text if text and text.isprintable() else None

    def number(self, field: Field) -> int | None:
        """A field of a little-endian number; None where there is none."""
        value = self.opaque.get(field)
        return None if value is None else int.from_bytes(value, "little")


def parse(data: bytes) -> Report:
    """Take a report apart, to its last byte.

    Raises:
        Unreadable: it is none, or of a version or kind that is not known here.
    """
    if not _REQUEST_SIZE + _NONCE_SIZE + SIGNATURE_SIZE < len(data) <= REPORT_MAX:
        raise Unreadable(f"the report has {len(data)} bytes, which no report has")
    slot = _request(data[:_REQUEST_SIZE])
    signed, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
    reader = _Reader(signed, _REQUEST_SIZE)
    version, code, _, param2 = reader.take(4)
    if (version, code) != (_VERSION, _MEASUREMENTS):
        raise Unreadable(f"the response is no MEASUREMENTS of SPDM 1.1: it begins {version:02x} {code:02x}")
    if param2 & _SLOT != slot:
        raise Unreadable(f"the response is of slot {param2 & _SLOT}, and slot {slot} was asked for")
    count = reader.number(1)
    measurements = _blocks(reader.take(reader.number(3)), count)
    response_nonce = reader.take(_NONCE_SIZE)
    opaque = _fields(reader.take(reader.number(2)))
    if reader.left:
        raise Unreadable(f"between opaque data and signature are {reader.left} bytes that belong to neither")
    return Report(signed, signature, data[4:36], response_nonce, slot, measurements, opaque)


def _request(data: bytes) -> int:
    """The slot that a request names."""
    if data[:2] != bytes((_VERSION, _GET_MEASUREMENTS)):
        raise Unreadable(f"the report begins with no GET_MEASUREMENTS of SPDM 1.1: {data[:2].hex(' ')}")
    if not data[2] & _SIGNATURE_REQUESTED or data[3] != _ALL_BLOCKS:
        raise Unreadable("the request does not ask for all measurements with a signature")
    if data[36] & ~_SLOT:
        raise Unreadable(f"the request names slot {data[36]}, which there is not")
    return data[36]


def _blocks(record: bytes, count: int) -> dict[int, bytes]:
    """Values by the index of their block, which has a header before that of its value."""
    offset, values = 0, dict[int, bytes]()
    while offset < len(record):
        start = offset + _HEADER.size
        if start > len(record):
            raise Unreadable("the record of measurements ends within a block")
        index, specification, block_size, _, size = _HEADER.unpack_from(record, offset)
        offset = start + size
        if specification != _DMTF or block_size != size + _VALUE_HEADER:
            raise Unreadable(f"measurement {index} is not of DMTF's form")
        if offset > len(record):
            raise Unreadable(f"the record of measurements ends within measurement {index}")
        if index == 0 or index in values:
            raise Unreadable(f"measurement {index} is there twice" if index else "a measurement has index 0")
        values[index] = record[start:offset]
    if len(values) != count:
        raise Unreadable(f"the record has {len(values)} measurements, and says that they are {count}")
    return values


def _fields(data: bytes) -> dict[int, bytes]:
    reader, values = _Reader(data, 0), dict[int, bytes]()
    while reader.left:
        kind = reader.number(2)
        if kind in values:
            raise Unreadable(f"field {kind} of the opaque data is there twice")
        values[kind] = reader.take(reader.number(2))
    return values


class _Reader:
    """Bytes from the front, never more than there are."""

    def __init__(self, data: bytes, offset: int) -> None:
        self._data, self._offset = data, offset

    @property
    def left(self) -> int:
        return len(self._data) - self._offset

    def take(self, size: int) -> bytes:
        end = self._offset + size
        if end > len(self._data):
            raise Unreadable(f"the report ends at byte {len(self._data)} of a part, within something that has {size}")
        taken = self._data[self._offset : end]
        self._offset = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")
