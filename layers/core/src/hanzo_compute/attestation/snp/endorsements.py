"""What comes with a report: the certificate of its key, the chain of that, and a list of revoked certificates."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from hanzo_compute.attestation import der
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.remembered import remembered
from hanzo_compute.attestation.snp import chain, vek

EVIDENCE_MAX: Final = 64 * 1024
"""Bytes of each file; the largest of them is a certificate table, and real ones have below 8 KiB."""
CRL_MAX: Final = 1024 * 1024
ENTRIES_MAX: Final = 64
CERTIFICATES_MAX: Final = 16
"""Certificates that are looked at: a chain has two, and entries of a table may point to one another's."""
_ENTRY: Final = struct.Struct("<16sII")
_END: Final = bytes(16)
_CERTIFICATES: Final = frozenset(
    UUID(guid).bytes
    for guid in (
        "63da758d-e664-4564-adc5-f4b93be8accd",  # VCEK
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",  # VLEK
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",  # ASK or ASVK
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",  # ARK
    )
)
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_PEM_END: Final = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Endorsements:
    """What came with a report."""

    key: bytes | None
    """Certificate of the VCEK or VLEK, DER; not yet read where it is a file of its own."""
    authorities: tuple[bytes, ...]
    """ASK, ASVK, ARK or whatever was given for them, DER."""


def take(files: Mapping[str, bytes]) -> Endorsements:
    """What is in ``vek``, ``chain`` and ``cert_table``. A key in ``vek`` precedes one in the others.

    Raises:
        Unreadable: one of them is too large or not of its format.
    """
    for name, data in files.items():
        limit = CRL_MAX if name == "crl" else EVIDENCE_MAX
        if len(data) > limit:
            raise Unreadable(f"{name} has {len(data)} bytes; at most {limit} are read")
    keys, authorities = _sorted(files.get("chain", b""), files.get("cert_table", b""))
    if "vek" in files:
        (key, *more) = _ders(files["vek"], "vek")
        if more:
            raise Unreadable(f"vek is one certificate; here are {len(more) + 1}")
        return Endorsements(key, authorities)
    return Endorsements(keys[0] if keys else None, authorities)


@remembered(256)
def _sorted(file: bytes, table: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Keys, and authorities."""
    keys: list[bytes] = []
    authorities: list[bytes] = []
    parts = [(part, "cert_table") for part in _entries(table)] if table else []
    for part, name in [(file, "chain"), *parts] if file else parts:
        for each in _ders(part, name):
            if len(keys) + len(authorities) == CERTIFICATES_MAX:
                raise Unreadable(f"more than {CERTIFICATES_MAX} certificates came with the report")
            if _is_key(each):
                keys.append(each)
            else:
                _authority(each, name)
                authorities.append(each)
    return tuple(keys), tuple(authorities)


def _entries(data: bytes) -> list[bytes]:
    """The certificates of a table: entries up to one of zeros, then what they point to (AMD 56421, GHCB, 4.1.8.1)."""
    found: list[bytes] = []
    for index in range(ENTRIES_MAX):
        if len(data) < (index + 1) * _ENTRY.size:
            raise Unreadable("cert_table ends before its last entry")
        guid, offset, length = _ENTRY.unpack_from(data, index * _ENTRY.size)
        if guid == _END:
            return found
        if offset + length > len(data):
            raise Unreadable(f"entry {index} of cert_table reaches beyond its end")
        # A host may put there what else it likes.
        if guid in _CERTIFICATES:
            found.append(data[offset : offset + length])
    raise Unreadable(f"cert_table has more than {ENTRIES_MAX} entries")


def _ders(data: bytes, name: str) -> list[bytes]:
    """Certificates of a PEM text, or the one DER, not yet read: the library does not read those of chips."""
    if _PEM_BEGIN not in data:
        return [data]
    found = []
    for part in data.split(_PEM_BEGIN)[1:]:
        body, end, _ = part.partition(_PEM_END)
        try:
            found.append(binascii.a2b_base64(b"".join(body.split()), strict_mode=True))
        except ValueError as error:
            raise Unreadable(f"{name} has PEM that cannot be read: {error}") from None
        if not end:
            raise Unreadable(f"{name} has PEM without an end")
    return found


def _is_key(certificate: bytes) -> bool:
    try:
        vek.parse(certificate)
    except ValueError:
        return False
    return True


def _authority(certificate: bytes, name: str) -> None:
    try:
        serial = der.read(certificate).children()[0].children()[1].integer()
        if serial == 0:
            raise ValueError("its serial number is 0, which only keys of chips have")
        chain.authority(certificate)
    except (ValueError, IndexError) as error:
        raise Unreadable(f"a certificate of {name} cannot be read: {error}") from None
