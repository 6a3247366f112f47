"""Certificate status (OCSP, RFC 6960), from responses that come as collateral: nothing is asked for here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Unreadable

RESPONSE_MAX: Final = 16 * 1024
"""Bytes of a response; NVIDIA's have about one KiB."""
_HASHES: Final = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}


@dataclass(frozen=True, slots=True)
class Status:
    """What the responses say of one certificate."""

    good: bool | None
    """None where none of them is about it."""
    why: str
    """What speaks against it, or what is missing; empty where it is good."""


def load(data: bytes) -> ocsp.OCSPResponse:
    """A response from its DER.

    Raises:
        Unreadable: it is none.
    """
    if len(data) > RESPONSE_MAX:
        raise Unreadable(f"an OCSP response has {len(data)} bytes; it has at most {RESPONSE_MAX}")
    try:
        return ocsp.load_der_ocsp_response(data)
    except ValueError as error:
        raise Unreadable(f"an OCSP response cannot be read: {error}") from None


def status(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    responses: Sequence[ocsp.OCSPResponse],
    *,
    now_ms: int,
    nonce: bytes | None = None,
    allow_hold: bool = False,
) -> Status:
    """What responses say of a certificate at a time.

    The worst counts: a revocation outweighs a good answer, and so does anything that is wrong with an answer.

    Args:
        certificate: whose status is asked for.
        issuer: of the certificate; it must have issued the responder's too, or be the responder.
        responses: any, of this certificate and others.
        now_ms: the time to judge at.
        nonce: what each response was asked with, if the verifier knows.
        allow_hold: take a certificate on hold for good.
    """
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    problems, seen = [], False
    for response in responses:
        try:
            for single in about(response, certificate, issuer):
                seen = True
                problems.append(
                    _revoked(single, allow_hold)
                    or signer_problem(response, issuer, now)
                    or _fresh(response, single, now, nonce)
                )
        except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
            problems.append(f"a response cannot be read: {error}")
    found = next((problem for problem in problems if problem), "")
    if found:
        return Status(False, found)
    return Status(True, "") if seen else Status(None, "there is no response about it")


def about(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> list[ocsp.OCSPSingleResponse]:
    """The single responses that name the certificate (RFC 6960 section 4.1.1)."""
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return []
    named = [each for each in response.responses if each.serial_number == certificate.serial_number]
    return [each for each in named if _names(each, issuer)]


def _names(single: ocsp.OCSPSingleResponse, issuer: x509.Certificate) -> bool:
    digest, key = _HASHES.get(single.hash_algorithm.name), _key_bits(issuer)
    if digest is None or key is None:
        return False
    return (single.issuer_name_hash, single.issuer_key_hash) == (
        digest(issuer.subject.public_bytes()).digest(),
        digest(key).digest(),
    )


def _key_bits(certificate: x509.Certificate) -> bytes | None:
    """The bits of a public key, without its algorithm."""
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _revoked(single: ocsp.OCSPSingleResponse, allow_hold: bool) -> str:
    if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return ""
    if single.certificate_status is not ocsp.OCSPCertStatus.REVOKED:
        return "its responder does not know it"
    if single.revocation_reason is not x509.ReasonFlags.certificate_hold:
        reason = single.revocation_reason.value if single.revocation_reason else "no reason given"
        return f"it was revoked {single.revocation_time_utc} ({reason})"
    return "" if allow_hold else f"it is on hold since {single.revocation_time_utc}"


def signer_problem(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> str:
    """Why a response is not by the issuer, or whom it lets answer (section 4.2.2.2)."""
    responder = next((each for each in [*response.certificates, issuer] if _is_responder(response, each)), None)
    if responder is None:
        return "the responder's certificate is not there"
    if responder != issuer:
        if not chains.issued(responder, issuer):
            return "the responder was not appointed by the certificate's issuer"
        if not responder.not_valid_before_utc <= now <= responder.not_valid_after_utc:
            return "the responder's certificate is not valid at the time"
        if not _may_respond(responder):
            return "the responder's certificate is not for OCSP"
    key, algorithm = responder.public_key(), response.signature_hash_algorithm
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
        algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512
    ):
        return "the response is not signed with ECDSA and SHA-2"
    try:
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))
    except InvalidSignature:
        return "the response's signature is not by its responder"
    return ""


def _is_responder(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return certificate.subject == response.responder_name
    key = _key_bits(certificate)
    return key is not None and hashlib.sha1(key, usedforsecurity=False).digest() == response.responder_key_hash


def _may_respond(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _fresh(response: ocsp.OCSPResponse, single: ocsp.OCSPSingleResponse, now: datetime, nonce: bytes | None) -> str:
    if single.next_update_utc is None or not single.this_update_utc <= now <= single.next_update_utc:
        return f"the response is of {single.this_update_utc} to {single.next_update_utc}, and not of the time"
    if nonce is None:
        return ""
    found = nonce_of(response)
    if found is None:
        return "the response does not answer the nonce that it was asked with"
    return "" if found == nonce else "the response answers another nonce"


def nonce_of(response: ocsp.OCSPResponse) -> bytes | None:
    """The nonce that a response answers. Raises ValueError if its extensions cannot be read."""
    try:
        return response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None
