"""Whether a quote is genuine: format, the PCK certificate's chain, and the three links from it to the quote.

The PCK signs the report of the quoting enclave, the report names the attestation key, that key signs the quote.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Context, Findings, Group
from hanzo_compute.attestation.pins import INTEL
from hanzo_compute.attestation.tdx.ecdsa import verified
from hanzo_compute.attestation.tdx.pck import Known, Pck, know
from hanzo_compute.attestation.tdx.quote import ECDSA_P256, INTEL_QE, PCK_CHAIN, Quote

_API: Final = "Intel TDX DCAP Quoting Library API, appendix 3"
_PROFILE: Final = "Intel SGX PCK Certificate and CRL Profile Specification, section 1"
_CACHED: Final = 1024
_P256: Final = ec.SECP256R1()


def check(findings: Findings, prefix: str, quote: Quote, context: Context) -> Known | None:
    """Write the checks down; the PCK chain as it is judged here, if there is one."""
    _format(findings, prefix, quote)
    known, problem = _chain(quote, context)
    chain = known.chain if known else chains.Chain((), problem, problem, problem, problem)
    chain.record(findings, f"{prefix}.chain", what="chain of the PCK certificate", source=_PROFILE)
    problem = known.problem if known else problem
    text = f"the leaf is no PCK certificate: {problem}" if problem else "the leaf is a PCK certificate"
    findings.check(f"{prefix}.pck", Group.GENUINE, not problem, text, source=_PROFILE)
    _links(findings, prefix, quote, known)
    return known


def _format(findings: Findings, prefix: str, quote: Quote) -> None:
    ok = quote.att_key_type == ECDSA_P256
    text = "the attestation key is of P-256" if ok else f"attestation keys of type {quote.att_key_type} are not known"
    findings.check(f"{prefix}.key_type", Group.GENUINE, ok, text, source=_API)
    ok = quote.qe_vendor == INTEL_QE
    text = "the quoting enclave is Intel's" if ok else "the quoting enclave is of another vendor"
    findings.check(
        f"{prefix}.qe_vendor", Group.GENUINE, ok, text, expected=INTEL_QE, actual=quote.qe_vendor, source=_API
    )
    ok = quote.cert_type == PCK_CHAIN
    text = "it carries its PCK chain" if ok else "it does not carry its PCK chain: its certification data is of"
    text += "" if ok else f" type {quote.cert_type}"
    findings.check(f"{prefix}.cert_type", Group.GENUINE, ok, text, expected=5, actual=quote.cert_type, source=_API)
    ok = not quote.trailing.strip(b"\0")
    text = "only zeros follow the quote" if ok else "something follows the quote that is not zeros"
    findings.check(f"{prefix}.trailing", Group.GENUINE, ok, text, source=_API)


def _chain(quote: Quote, context: Context) -> tuple[Known | None, str]:
    if quote.cert_type != PCK_CHAIN:
        return None, "there is no PCK chain"
    try:
        known = know(quote.cert_data)
    except ValueError as error:
        return None, f"the PCK chain cannot be read: {error}"
    chain = known.chain
    certificates = chain.certificates
    if chain.root and context.anchors:
        chain = chains.verify(certificates, now_ms=context.now_ms, pins=INTEL, anchors=context.anchors)
    else:
        validity = chains.validity(certificates, context.now_ms)
        chain = chains.Chain(certificates, chain.root, chain.links, validity, chain.rules)
    return replace(known, chain=chain), ""


def _links(findings: Findings, prefix: str, quote: Quote, known: Known | None) -> None:
    ok = _certified(known.pck, quote.qe_signature, quote.qe_report) if known and known.pck else None
    text = "the PCK signed the report of the quoting enclave" if ok else "the PCK did not sign the quoting enclave's"
    text += "" if ok else " report" if ok is False else " report: there is no PCK certificate"
    findings.check(f"{prefix}.qe_signature", Group.GENUINE, ok, text, source=_API)
    expected = hashlib.sha256(quote.attestation_key + quote.qe_auth).digest() + bytes(32)
    actual = quote.qe.report_data
    ok = actual == expected
    text = "the report names the attestation key" if ok else "the report names another attestation key"
    findings.check(f"{prefix}.qe_binding", Group.GENUINE, ok, text, expected=expected, actual=actual, source=_API)
    try:
        ok = verified(_attestation_key(quote.attestation_key), quote.signature, quote.signed)
    except ValueError:  # it is no point of the curve
        ok = False
    text = "the attestation key signed the quote" if ok else "the attestation key did not sign this quote"
    findings.check(f"{prefix}.signature", Group.GENUINE, ok, text, source=_API)


@lru_cache(maxsize=_CACHED)
def _certified(pck: Pck, signature: bytes, report: bytes) -> bool:
    """The report is the attestation key's certificate, and the same in all quotes until the platform makes another."""
    return verified(pck.key, signature, report)


@lru_cache(maxsize=_CACHED)
def _attestation_key(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(_P256, b"\x04" + point)
