"""What a device's first certificate says of its firmware: extensions of TCG's DICE Attestation Architecture 1.1.

Hopper's and NVSwitch's has ``2.23.133.5.4.1``: SEQUENCE of a version, the device's key and an FWID. Blackwell's has
``2.23.133.5.4.1.1``, DiceTcbInfo (section 6.1.1): FWIDs, and flags of how it runs. An FWID is an algorithm and a
digest of the firmware that was started with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography import x509

from hanzo_compute.attestation.checks import Unreadable

DEVICE_ID: Final = "2.23.133.5.4.1"
TCB_INFO: Final = "2.23.133.5.4.1.1"
UNDERSTOOD: Final = frozenset({DEVICE_ID, TCB_INFO})

_CACHED: Final = 1024
_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_OID: Final = 0x06
_FWIDS: Final = 0xA6
_FLAGS: Final = 0x87
_SHA384: Final = bytes.fromhex("608648016503040202")
_FLAG_NAMES: Final = {1: "not secure", 2: "recovery", 3: "debug"}
"""Flags that speak against a device, by their bit. Bit 0, not configured, is set in what NVIDIA ships."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """What a certificate says of the firmware."""

    fwid: bytes | None
    """SHA-384 of it."""
    flags: frozenset[str] | None
    """What of `not secure`, `recovery` and `debug` holds; None where the certificate does not tell."""


@lru_cache(maxsize=_CACHED)
def firmware(certificate: x509.Certificate) -> Firmware:
    """Read it from a device's certificate; remembered, for no certificate changes.

    Raises:
        Unreadable: an extension is not of its form.
    """
    fwid, flags = None, None
    for extension in certificate.extensions:
        oid = extension.oid.dotted_string
        if oid not in UNDERSTOOD or not isinstance(extension.value, x509.UnrecognizedExtension):
            continue
        if fwid is not None:
            raise Unreadable("the device's certificate says twice what its firmware is")
        if oid == DEVICE_ID:
            fwid = _device_id(extension.value.value)
        else:
            fwid, flags = _tcb_info(extension.value.value)
    return Firmware(fwid, flags)


def _device_id(der: bytes) -> bytes:
    parts = items(_only(der, _SEQUENCE))
    if [tag for tag, _ in parts] != [_INTEGER, _SEQUENCE, _SEQUENCE]:
        raise Unreadable(f"extension {DEVICE_ID} is no version, key and FWID")
    return _fwid(parts[2][1])


def _tcb_info(der: bytes) -> tuple[bytes | None, frozenset[str] | None]:
    parts = items(_only(der, _SEQUENCE))
    tags = [tag & 0x1F for tag, _ in parts]
    if any(tag & 0xC0 != 0x80 for tag, _ in parts) or any(a >= b for a, b in pairwise(tags)):
        raise Unreadable(f"the fields of extension {TCB_INFO} are not in their order")
    fields = dict(parts)
    fwids = [content for tag, content in items(fields.get(_FWIDS, b"")) if tag == _SEQUENCE]
    flags = fields.get(_FLAGS)
    return (_fwid(fwids[0]) if fwids else None), (None if flags is None else _flags(flags))


def _fwid(content: bytes) -> bytes:
    parts = items(content)
    if [tag for tag, _ in parts] != [_OID, _OCTETS] or parts[0][1] != _SHA384 or len(parts[1][1]) != 48:
        raise Unreadable("an FWID is no SHA-384")
    return parts[1][1]


def _flags(content: bytes) -> frozenset[str]:
    """A BIT STRING: the number of unused bits, then bits from the most significant."""
    if not content or content[0] > 7 or (content[0] and len(content) == 1):
        raise Unreadable("the flags of the TCB are no bit string")
    bits = [byte >> shift & 1 for byte in content[1:] for shift in range(7, -1, -1)]
    return frozenset(name for bit, name in _FLAG_NAMES.items() if bit < len(bits) and bits[bit])


def items(content: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each DER element that ``content`` is made of.

    Raises:
        Unreadable: it is made of something else.
    """
    found, offset = [], 0
    while offset < len(content):
        if offset + 2 > len(content) or content[offset] & 0x1F == 0x1F:
            raise Unreadable("an extension of the device's certificate is no DER")
        tag, size, start = content[offset], content[offset + 1], offset + 2
        if size & 0x80:
            width = size & 0x7F
            size = int.from_bytes(content[start : start + width], "big")
            start += width
            if not 1 <= width <= 2 or size < (0x80 if width == 1 else 0x100):
                raise Unreadable("an extension of the device's certificate is no DER: a length is not the shortest")
        offset = start + size
        if offset > len(content):
            raise Unreadable("an extension of the device's certificate is cut off")
        found.append((tag, content[start:offset]))
    return found


def _only(der: bytes, tag: int) -> bytes:
    parts = items(der)
    if len(parts) != 1 or parts[0][0] != tag:
        raise Unreadable("an extension of the device's certificate is not one sequence")
    return parts[0][1]
