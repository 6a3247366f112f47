"""An XML document under one enveloped signature (W3C XML Signature 1.1), as far as NVIDIA's reference values need it.

The profile is narrow on purpose: one Signature, a child of the root; one Reference, to the whole document; inclusive
canonicalisation 1.0 or 1.1 (alike for a whole document); SHA-384 and ECDSA with it. What is read afterwards is the very
tree whose canonical form the digest is over, so what is signed and what is read cannot differ.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final

from lxml import etree

from hanzo_compute.attestation.checks import Unreadable

DOCUMENT_MAX: Final = 256 * 1024
"""Bytes of a document; NVIDIA's have about 25 KiB."""
_DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_C14N: Final = frozenset({"http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "http://www.w3.org/2006/12/xml-c14n11"})
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ECDSA_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384: Final = "http://www.w3.org/2001/04/xmldsig-more#sha384"


@dataclass(frozen=True, slots=True)
class Signed:
    """A document and its signature, taken apart and not yet believed."""

    root: etree._Element
    """What the digest is over, without the signature."""
    digest: bytes
    """SHA-384 of that."""
    stated_digest: bytes
    """What the signature says that it is."""
    signed_info: bytes
    """What the signature is over."""
    signature: bytes
    """r ‖ s, 48 bytes each, big-endian."""
    certificates: tuple[bytes, ...]
    """DER, in the order of the document."""


def parse(data: bytes) -> Signed:
    """Take a signed document apart.

    Raises:
        Unreadable: it is no document of the profile.
    """
    root = _document(data)
    signatures = list(root.iter(f"{_DS}Signature"))
    if len(signatures) != 1 or signatures[0].getparent() is not root:
        raise Unreadable(f"there is not one Signature below the root, but {len(signatures)} in all")
    info, value, key_info = _children(signatures[0], "SignedInfo", "SignatureValue", "KeyInfo")
    signed_info = _canonical(info)
    stated = _reference(info)
    signature = _base64(value)
    if len(signature) != 96:
        raise Unreadable(f"the signature has {len(signature)} bytes; ECDSA with P-384 has 96")
    certificates = _certificates(key_info)
    content = _canonical(_without(root, signatures[0]))
    return Signed(root, hashlib.sha384(content).digest(), stated, signed_info, signature, certificates)


def _document(data: bytes) -> etree._Element:
    if len(data) > DOCUMENT_MAX:
        raise Unreadable(f"the document has {len(data)} bytes; it has at most {DOCUMENT_MAX}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("the document is not UTF-8") from None
    # Without a DOCTYPE there are no entities, no default attributes and nothing external. The parser is held to
    # UTF-8 whatever the document declares, so that it cannot see one that is not seen here.
    if "<!DOCTYPE" in text:
        raise Unreadable("the document has a DTD")
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False, recover=False
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Unreadable(f"the document is no XML: {str(error)[:200]}") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise Unreadable("the document has a DTD")
    # Comments split a text in two, of which a reader may see one only; instructions are for other readers.
    around = root.getprevious(), root.getnext()
    if around != (None, None) or next(root.iter(etree.Comment, etree.ProcessingInstruction), None) is not None:
        raise Unreadable("the document has comments or processing instructions")
    return root


def _canonical(element: etree._Element) -> bytes:
    try:
        return etree.tostring(element, method="c14n", exclusive=False, with_comments=False)
    except etree.LxmlError as error:
        raise Unreadable(f"the document has no canonical form: {error}") from None


def _without(root: etree._Element, signature: etree._Element) -> etree._Element:
    """The enveloped-signature transform: the element goes, and the text after it stays."""
    before, tail = signature.getprevious(), signature.tail or ""
    if before is None:
        root.text = (root.text or "") + tail
    else:
        before.tail = (before.tail or "") + tail
    root.remove(signature)
    return root


def _children(parent: etree._Element, *names: str) -> list[etree._Element]:
    """The children, which are exactly these, in this order, with nothing but white space between them."""
    found = list(parent)
    if [child.tag for child in found] != [_DS + name for name in names]:
        raise Unreadable(f"{_name(parent)} does not have {', '.join(names)}, and nothing else")
    if any(text and not text.isspace() for text in (parent.text, *(child.tail for child in found))):
        raise Unreadable(f"{_name(parent)} has text between its elements")
    return found


def _reference(info: etree._Element) -> bytes:
    """The digest that a SignedInfo of the profile states."""
    canonical, method, reference = _children(info, "CanonicalizationMethod", "SignatureMethod", "Reference")
    if _algorithm(canonical) not in _C14N or _algorithm(method) != _ECDSA_SHA384:
        raise Unreadable("the signature is not ECDSA with SHA-384 over inclusive canonical XML")
    if reference.get("URI") != "":
        raise Unreadable(f"the signature is not over the whole document, but over {reference.get('URI')!r}")
    transforms, digest_method, digest = _children(reference, "Transforms", "DigestMethod", "DigestValue")
    applied = [_algorithm(each) for each in _children(transforms, *["Transform"] * len(transforms))]
    if applied[:1] != [_ENVELOPED] or len(applied) > 2 or not _C14N.issuperset(applied[1:]):
        raise Unreadable("the transforms are not enveloped-signature and inclusive canonical XML")
    if _algorithm(digest_method) != _SHA384:
        raise Unreadable("the digest is no SHA-384")
    return _base64(digest)


def _algorithm(element: etree._Element) -> str | None:
    if len(element):
        raise Unreadable(f"{_name(element)} has parameters, which none of the profile's has")
    return element.get("Algorithm")


def _certificates(key_info: etree._Element) -> tuple[bytes, ...]:
    (data,) = _children(key_info, "X509Data")
    if not 1 <= len(data) <= 8:
        raise Unreadable(f"the signature comes with {len(data)} certificates")
    return tuple(_base64(each) for each in _children(data, *["X509Certificate"] * len(data)))


def _base64(element: etree._Element) -> bytes:
    if len(element):
        raise Unreadable(f"{_name(element)} is no text")
    try:
        return base64.b64decode("".join((element.text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable(f"{_name(element)} is no base64") from None


def _name(element: etree._Element) -> str:
    return etree.QName(element).localname
