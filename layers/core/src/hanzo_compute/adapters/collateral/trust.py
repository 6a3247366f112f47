"""Telling answers from lies before they are kept: a lie that was kept would keep out the truth.

The appraisal does not rely on it: it verifies everything again, with the rules of its platform.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hanzo_compute.adapters.collateral.wanted import Unfit, Unobtainable
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.pins import Pin

_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2})+\s*")


def rooted(certificates: Sequence[x509.Certificate], roots: Sequence[Pin], anchors: Sequence[bytes]) -> None:
    """Raise Unfit unless these certificates, leaf first, are a chain to a root. Their times are for the appraisal."""
    chain = chains.verify(certificates, now_ms=0, pins=roots, anchors=anchors, leaf_signs=False)
    if problem := chain.root or chain.links or chain.rules:
        raise Unfit(problem)


def revocations(data: bytes, issuers: Sequence[x509.Certificate]) -> tuple[bytes, int]:
    """A revocation list of one of ``issuers`` as DER, and its next update.

    Caching services give some lists in hex.

    Raises:
        ValueError: it is none, or another's.
    """
    der = bytes.fromhex(data.decode()) if _HEX.fullmatch(data) else data
    found = x509.load_der_x509_crl(der)
    if not any(_signed(found, each) for each in issuers):
        raise Unfit(f"it is no revocation list of {' or '.join(each.subject.rfc4514_string() for each in issuers)}")
    if found.next_update_utc is None:
        raise Unfit("it does not say when the next one comes")
    return found.public_bytes(serialization.Encoding.DER), milliseconds(found.next_update_utc)


def _signed(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    if found.issuer != issuer.subject or not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return False
    return found.is_signature_valid(key)


def texts(data: str | bytes, *names: str) -> list[str]:
    """Fields of a JSON object that are texts.

    Raises:
        ValueError: it is no such object.
    """
    said = json.loads(data)
    found = [said.get(name) for name in names] if isinstance(said, dict) else []
    given = [value for value in found if isinstance(value, str)]
    if len(given) != len(names):
        raise Unfit(f"it is no JSON object with {', '.join(names)}")
    return given


def milliseconds(time: datetime) -> int:
    """A time as milliseconds since the epoch."""
    return round(time.timestamp() * 1000)


def together(failed: Sequence[Unobtainable]) -> Unobtainable:
    """Several reasons as one: worth asking again if all of them are."""
    waits = [error.retry_after_s for error in failed if error.retry_after_s is not None]
    return Unobtainable(
        "; ".join(error.reason for error in failed),
        passing=all(error.passing for error in failed),
        retry_after_s=max(waits, default=None),
    )
