"""Attestation documents of the Nitro Security Module: COSE_Sign1 and what it carries.

Their format is docs/attestation_process.md of aws-nitro-enclaves-nsm-api, sections 2.2, 3.1 and 3.2.2. It forbids null,
and yet the module writes null for an optional field that is not there: both are accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nitro.cbor import Item, decode, decode_first, encode_bytes

ENVELOPE_MAX: Final = 64 * 1024
PAYLOAD_MAX: Final = 16 * 1024
CERTIFICATE_MAX: Final = 1024
BUNDLE_MAX: Final = 9
"""Certificates of the bundle; documents have four."""
FIELD_MAX: Final = 1024
"""Bytes of public key, user data and nonce each; section 3.2.2.2 has 512 for the latter two, section 2.2 1024."""
PCRS: Final = 32
PCR_SIZES: Final = frozenset({32, 48, 64})
TIMESTAMP_MAX_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""
_TAG: Final = b"\xd2"
"""Tag 18, COSE_Sign1 (RFC 9052 section 2)."""
_MANDATORY: Final = frozenset({"module_id", "timestamp", "digest", "pcrs", "certificate", "cabundle"})
_OPTIONAL: Final = frozenset({"public_key", "user_data", "nonce"})


@dataclass(frozen=True, slots=True)
class Envelope:
    """A COSE_Sign1 (RFC 9052 section 4.2)."""

    protected: bytes
    """The protected header, as it is signed."""
    headers: dict[int | str, Item]
    """The protected header, decoded."""
    unprotected: dict[int | str, Item]
    payload: bytes
    signature: bytes
    rest: bytes
    """What follows."""

    def to_be_signed(self) -> bytes:
        """The Sig_structure, without external data (RFC 9052 section 4.4)."""
        return b"".join((b"\x84\x6aSignature1", encode_bytes(self.protected), b"\x40", encode_bytes(self.payload)))


@dataclass(frozen=True, slots=True)
class Document:
    """What the module states."""

    module_id: str
    timestamp_ms: int
    digest: str
    pcrs: dict[int, bytes]
    certificate: bytes
    """DER; its key signed the document."""
    cabundle: tuple[bytes, ...]
    """DER, root first: each issued the next, and the last the certificate."""
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None


def unwrap(data: bytes) -> Envelope:
    """Read a COSE_Sign1, tagged or not. Raises Unreadable."""
    if len(data) > ENVELOPE_MAX:
        raise Unreadable(f"the document has {len(data)} bytes; it has at most {ENVELOPE_MAX}")
    data = data.removeprefix(_TAG)
    parts, end = decode_first(data)
    if not isinstance(parts, list) or len(parts) != 4:
        raise Unreadable("the document is no COSE_Sign1: that is an array of four")
    protected, unprotected, payload, signature = parts
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise Unreadable("protected header, payload and signature of a COSE_Sign1 are byte strings")
    headers = decode(protected) if protected else {}
    if not (isinstance(headers, dict) and isinstance(unprotected, dict)):
        raise Unreadable("the headers of a COSE_Sign1 are maps")
    return Envelope(protected, headers, unprotected, payload, signature, data[end:])


def read(payload: bytes) -> Document:
    """Read what a COSE_Sign1 carries, by the rules of section 3.2.2. Raises Unreadable."""
    if not 1 <= len(payload) <= PAYLOAD_MAX:
        raise Unreadable(f"the payload has {len(payload)} bytes; it has 1 to {PAYLOAD_MAX}")
    fields = decode(payload)
    if not isinstance(fields, dict):
        raise Unreadable("the payload is no map")
    if missing := sorted(_MANDATORY - fields.keys()):
        raise Unreadable(f"the document has no {', '.join(missing)}")
    if unknown := [str(key)[:64] for key in fields if key not in _MANDATORY | _OPTIONAL]:
        raise Unreadable(f"the document has fields that are not known: {', '.join(unknown[:4])}")
    return Document(
        module_id=_text(fields, "module_id"),
        timestamp_ms=_timestamp(fields["timestamp"]),
        digest=_text(fields, "digest"),
        pcrs=_pcrs(fields["pcrs"]),
        certificate=_certificate(fields["certificate"]),
        cabundle=_bundle(fields["cabundle"]),
        public_key=_optional(fields, "public_key"),
        user_data=_optional(fields, "user_data"),
        nonce=_optional(fields, "nonce"),
    )


def _text(fields: dict[int | str, Item], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not 1 <= len(value) <= 256:
        raise Unreadable(f"{name} is a text of 1 to 256 characters")
    return value


def _timestamp(value: Item) -> int:
    if not isinstance(value, int) or not 0 < value <= TIMESTAMP_MAX_MS:
        raise Unreadable("timestamp is a positive number of milliseconds, before the year 10000")
    return value


def _pcrs(value: Item) -> dict[int, bytes]:
    if not isinstance(value, dict) or not 1 <= len(value) <= PCRS:
        raise Unreadable(f"pcrs is a map of 1 to {PCRS} registers")
    registers: dict[int, bytes] = {}
    for index, content in value.items():
        if not isinstance(index, int) or not 0 <= index < PCRS:
            raise Unreadable(f"the index of a PCR is an integer from 0 to {PCRS - 1}, and not {str(index)[:32]!r}")
        if not isinstance(content, bytes) or len(content) not in PCR_SIZES:
            raise Unreadable(f"PCR{index} is no byte string of 32, 48 or 64 bytes")
        registers[index] = content
    return registers


def _bundle(value: Item) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= BUNDLE_MAX:
        raise Unreadable(f"cabundle is an array of 1 to {BUNDLE_MAX} certificates")
    return tuple(_certificate(each) for each in value)


def _certificate(value: Item) -> bytes:
    if not isinstance(value, bytes) or not 1 <= len(value) <= CERTIFICATE_MAX:
        raise Unreadable(f"a certificate is a byte string of 1 to {CERTIFICATE_MAX} bytes")
    return value


def _optional(fields: dict[int | str, Item], name: str) -> bytes | None:
    value = fields.get(name)
    if value is not None and (not isinstance(value, bytes) or len(value) > FIELD_MAX):
        raise Unreadable(f"{name} is a byte string of at most {FIELD_MAX} bytes, or null")
    return value
