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

from hanzo_compute.attestation import der
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.x509 import Cert

UNDERSTOOD: Final = frozenset({"2.23.133.5.4.1", "2.23.133.5.4.1.1"})
"""Extensions, by their OID."""

_CACHED: Final = 1024
_CLASS: Final = 0xC0
_CONTEXT: Final = 0x80
_NUMBER: Final = 0x1F
_FWIDS: Final = 0xA6
_FLAGS: Final = 0x87
_SHA384: Final = "2.16.840.1.101.3.4.2.2"
_DIGEST_SIZE: Final = 48
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
def firmware(certificate: Cert) -> Firmware:
    """Read it from a device's certificate; remembered, for no certificate changes.

    Raises:
        ValueError: the extensions cannot be read, or one is not of its form.
    """
    found: Firmware | None = None
    for extension in chains.extensions(certificate.loaded):
        if extension.oid.dotted_string in UNDERSTOOD and isinstance(extension.value, x509.UnrecognizedExtension):
            if found is not None:
                raise Unreadable("the device's certificate says twice what its firmware is")
            found = _firmware(extension.value.value)
    return found or Firmware(None, None)


def _firmware(data: bytes) -> Firmware:
    """Either form: which one it is shows in its tags, for the first extension has held both."""
    parts = der.read(data).children()
    tags = [part.tag for part in parts]
    if tags == [der.INTEGER, der.SEQUENCE, der.SEQUENCE]:
        return Firmware(_fwid(parts[2]), None)
    if any(tag & _CLASS != _CONTEXT for tag in tags) or any(a & _NUMBER >= b & _NUMBER for a, b in pairwise(tags)):
        raise Unreadable("what the device's certificate says of its firmware is neither device id nor TCB info")
    fields = {part.tag: part for part in parts}
    fwids = fields[_FWIDS].children(_FWIDS) if _FWIDS in fields else []
    flags = _flags(fields[_FLAGS].content) if _FLAGS in fields else None
    return Firmware(_fwid(fwids[0]) if fwids else None, flags)


def _fwid(value: der.Value) -> bytes:
    parts = value.children()
    if len(parts) != 2 or parts[0].oid() != _SHA384 or len(parts[1].octets()) != _DIGEST_SIZE:
        raise Unreadable("an FWID is no SHA-384")
    return parts[1].octets()


def _flags(content: bytes) -> frozenset[str]:
    """A BIT STRING: the number of unused bits, then bits from the most significant."""
    if not content or content[0] > 7 or (content[0] and len(content) == 1):
        raise Unreadable("the flags of the TCB are no bit string")
    bits = [byte >> shift & 1 for byte in content[1:] for shift in range(7, -1, -1)]
    return frozenset(name for bit, name in _FLAG_NAMES.items() if bit < len(bits) and bits[bit])
