"""NVIDIA's reference values: a TCG Reference Integrity Manifest, which is a signed SWID tag (ISO/IEC 19770-2:2015).

Structure: TCG RIM Information Model 1.01 section 5, as far as NVIDIA uses it. A ``Resource`` of index i has the values
that block i + 1 of a report may have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from lxml import etree

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nvidia import xmldsig
from hanzo_compute.attestation.nvidia.ecdsa import verifies
from hanzo_compute.attestation.x509 import Cert

_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_RESOURCE: Final = f"{_SWID}Resource"
_HASH: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_CACHED: Final = 32
_INDEX_MAX: Final = 253
_ALTERNATIVES_MAX: Final = 64
_NUMBER: Final = re.compile(r"[0-9]{1,3}")
_HASHES: Final = tuple(f"{_HASH}{number}" for number in range(_ALTERNATIVES_MAX))
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{96}")
_DIGEST_SIZE: Final = "48"


@dataclass(frozen=True, slots=True)
class Rim:
    """Reference values, and whether what is under their signature is what they say; not whether it is trusted now."""

    version: str
    """Of the driver or the VBIOS that they are of."""
    product: str
    """The chip."""
    golden: dict[int, frozenset[bytes]]
    """Acceptable values by index, from 0, of those that are to be compared."""
    digest_ok: bool
    signature_ok: bool
    certificates: tuple[Cert, ...]
    """Of the signature, leaf first."""


@lru_cache(maxsize=_CACHED)
def parse(data: bytes) -> Rim:
    """Read reference values, and check their digest and signature; remembered by content, for none of it can change.

    Raises:
        Unreadable: they are of another form.
    """
    signed = xmldsig.parse(data)
    try:
        certificates = tuple(map(chains.read_one, signed.certificates))
    except ValueError as error:
        raise Unreadable(f"a certificate of the signature cannot be read: {error}") from None
    meta, golden = _tag(signed.root)
    return Rim(
        version=_attribute(meta, "colloquialVersion"),
        product=_attribute(meta, "product"),
        golden=golden,
        digest_ok=signed.digest == signed.stated_digest,
        signature_ok=verifies(certificates[0].loaded, signed.signature, signed.signed_info),
        certificates=certificates,
    )


def _tag(root: etree._Element) -> tuple[etree._Element, dict[int, frozenset[bytes]]]:
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise Unreadable("the document is no SWID tag")
    for name in ("name", "tagId"):
        _attribute(root, name)
    children = [child.tag for child in root]
    if not set(children) <= {f"{_SWID}{name}" for name in ("Entity", "Link", "Meta", "Payload")}:
        raise Unreadable("the SWID tag has elements that reference values have not")
    entities = root.findall(f"{_SWID}Entity")
    if not any("tagCreator" in each.get("role", "").split() for each in entities):
        raise Unreadable("the SWID tag names no tagCreator")
    metas, payloads = root.findall(f"{_SWID}Meta"), root.findall(f"{_SWID}Payload")
    if len(metas) != 1 or len(payloads) != 1:
        raise Unreadable(f"the SWID tag has {len(metas)} Meta and {len(payloads)} Payload; each is there once")
    return metas[0], _payload(payloads[0])


def _payload(payload: etree._Element) -> dict[int, frozenset[bytes]]:
    golden, seen = dict[int, frozenset[bytes]](), set[int]()
    for resource in payload:
        fields = cast("dict[str, str]", dict(resource.items()))
        if resource.tag != _RESOURCE or fields.get("type") != "Measurement" or len(resource):
            raise Unreadable("the payload has something else than measurements")
        index = _number(fields, "index", _INDEX_MAX)
        if index in seen:
            raise Unreadable(f"the payload has index {index} twice")
        seen.add(index)
        values = _values(fields, index)
        active = fields.get("active", "").lower()
        if active == "true":
            golden[index] = frozenset(map(bytes.fromhex, values))
        elif active != "false":
            raise Unreadable(f"whether index {index} is active is neither True nor False")
    if not seen:
        raise Unreadable("the payload has no measurements")
    return golden


def _values(fields: dict[str, str], index: int) -> list[str]:
    count = _number(fields, "alternatives", _ALTERNATIVES_MAX)
    values = [fields.get(name, "") for name in _HASHES[:count]]
    if not values or len([name for name in fields if name.startswith(_HASH)]) != count:
        raise Unreadable(f"index {index} does not have as many values as it says")
    if fields.get("size") != _DIGEST_SIZE or not all(map(_DIGEST.fullmatch, values)):
        raise Unreadable(f"index {index} has values that are no SHA-384")
    return values


def _number(fields: dict[str, str], name: str, largest: int) -> int:
    text = fields.get(name, "")
    if not _NUMBER.fullmatch(text) or int(text) > largest:
        raise Unreadable(f"{name} is no number up to {largest}: {text[:20]!r}")
    return int(text)


def _attribute(element: etree._Element, name: str) -> str:
    value = element.get(name)
    if not value:
        raise Unreadable(f"{etree.QName(element).localname} has no {name}")
    return value
