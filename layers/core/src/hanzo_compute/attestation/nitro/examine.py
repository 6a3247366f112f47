"""Evidence of an AWS Nitro enclave: its attestation document (file ``doc``), judged without a network.

The rules are those of docs/attestation_process.md of aws-nitro-enclaves-nsm-api, section 3. That names no revocation
lists: certificates of an instance live for a day, those of an enclave for three hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import Certificate

from hanzo_compute.attestation import pins
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.nitro import container
from hanzo_compute.attestation.nitro.document import Document, Envelope, read, unwrap
from hanzo_compute.attestation.nitro.policy import NitroPolicy
from hanzo_compute.attestation.x509 import Cert
from hanzo_compute.model.evidence import Tier

ES384: Final = -35
"""ECDSA with SHA-384 (RFC 9053 section 2.1); P-384 here."""
_ECDSA: Final = ec.ECDSA(hashes.SHA384())
_SCALAR: Final = 48
"""Bytes of each half of a signature with P-384."""
_IDENTIFYING: Final = (frozenset({0}), frozenset({8}), frozenset({1, 2}))
"""Registers of which one set says what runs: image, its signer, or kernel and application."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COSE: Final = "RFC 9052 section 4.2; nsm-api section 3.1"


def examine(files: Mapping[str, bytes], context: Context) -> Findings:
    """Every check of an attestation document.

    Raises:
        Unreadable: there is none, or its form is not that of a document.
    """
    data = files.get("doc")
    if data is None:
        raise Unreadable("the attestation document (doc) is missing")
    envelope = unwrap(data)
    document = read(envelope.payload)
    chain = _certificates(document)
    policy = context.policy.nitro or NitroPolicy()
    at = _EPOCH + timedelta(milliseconds=document.timestamp_ms)
    findings = Findings(
        tier=Tier.CPU_TEE,
        tier_why="an enclave has no GPU",
        identity=document.module_id,
        commitment=document.user_data,
        nonce=document.nonce,
        claims=_claims(document, chain, at),
    )
    text = "the document has its form"
    findings.check("nitro.format", Group.GENUINE, True, text, source="nsm-api section 3.2.2")
    _rest(findings, envelope, document)
    _headers(findings, envelope)
    _chain(findings, chain, at, context)
    _signature(findings, envelope, chain[0])
    _digest(findings, document)
    _debug(findings, document)
    _timestamp(findings, document, at, policy, context)
    _measured(findings, document, policy, context)
    _public_key(findings, document, context)
    return findings


def _certificates(document: Document) -> tuple[Cert, ...]:
    """Leaf first, root last: the bundle has the root first."""
    try:
        return tuple(map(chains.read_one, (document.certificate, *reversed(document.cabundle))))
    except ValueError as error:
        raise Unreadable(f"a certificate of the document cannot be read: {str(error)[:200]}") from None


def _rest(findings: Findings, envelope: Envelope, document: Document) -> None:
    name, ok, text = "nitro.trailing", True, "nothing follows the document"
    if envelope.rest:
        try:
            ok = container.report_data(envelope.rest) == document.user_data
            text = "the rest of a dstack container follows" if ok else "the container was of another document"
        except Unreadable as error:
            ok, text = False, f"{len(envelope.rest)} bytes follow the document ({error})"
    findings.check(name, Group.GENUINE, ok, text, actual=envelope.rest[:64] or None, source="RFC 9052 section 4.2")


def _headers(findings: Findings, envelope: Envelope) -> None:
    ok = envelope.headers == {1: ES384}
    text = "signed with ES384, and no other header" if ok else "its headers are other than the algorithm ES384 alone"
    expected, actual = f"{{1: {ES384}}}", str(envelope.headers)[:200]
    findings.check("nitro.protected", Group.GENUINE, ok, text, expected=expected, actual=actual, source=_COSE)
    ok = not envelope.unprotected
    text = "no headers outside of the signature" if ok else "it has headers that are not signed"
    actual = str(envelope.unprotected)[:200]
    findings.check("nitro.unprotected", Group.GENUINE, ok, text, expected="{}", actual=actual, source=_COSE)


def _chain(findings: Findings, chain: tuple[Cert, ...], at: datetime, context: Context) -> None:
    source = "nsm-api section 3.2.3"
    judged = chains.judge(chain, now_ms=context.now_ms, pins=pins.NITRO, anchors=context.anchors)
    judged.record(findings, "nitro.chain", what="the chain of the document's certificate", source=source)
    # Whether the extension is there; what it says is checked with the chain's rules.
    problem = next((each for each in chain if each.said.usage is None), None)
    text = "a certificate does not say what its key may be used for" if problem else "each certificate says its usage"
    findings.check(
        "nitro.chain.usage",
        Group.GENUINE,
        problem is None,
        text,
        actual=problem and problem.sha256,
        source="nsm-api section 3.2.3.3",
    )
    begin, end = max(each.begin for each in chain), min(each.end for each in chain)
    ok = begin <= at <= end
    text = "the chain was valid when it was signed" if ok else "the chain was not valid at the document's timestamp"
    expected = f"{begin.isoformat()} to {end.isoformat()}"
    name = "nitro.chain.at_timestamp"
    findings.check(name, Group.GENUINE, ok, text, expected=expected, actual=at.isoformat(), source=source)


def _signature(findings: Findings, envelope: Envelope, leaf: Cert) -> None:
    problem = signature_problem(envelope, leaf.loaded)
    text = problem or "signed by the certificate's key"
    findings.check("nitro.signature", Group.GENUINE, not problem, text, source="RFC 9053 section 2.1")


def signature_problem(envelope: Envelope, leaf: Certificate) -> str:
    """Why the document is not signed by the certificate's key with ES384; empty if it is."""
    signature = envelope.signature
    if len(signature) != 2 * _SCALAR:
        return f"the signature has {len(signature)} bytes; one of ES384 with P-384 has {2 * _SCALAR}"
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "the key of the certificate cannot be read"
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return "the key of the certificate is none of P-384"
    r, s = (int.from_bytes(half, "big") for half in (signature[:_SCALAR], signature[_SCALAR:]))
    try:
        key.verify(encode_dss_signature(r, s), envelope.to_be_signed(), _ECDSA)
    except InvalidSignature:
        return "the signature is not one of the certificate's key over this document"
    return ""


def _digest(findings: Findings, document: Document) -> None:
    ok = document.digest == "SHA384"
    text = "registers are of SHA-384" if ok else "registers are of another digest than SHA-384"
    source = "nsm-api section 3.2.2.2"
    findings.check("nitro.digest", Group.GENUINE, ok, text, expected="SHA384", actual=document.digest, source=source)


def _debug(findings: Findings, document: Document) -> None:
    image = document.pcrs.get(0)
    source = "AWS Nitro Enclaves user guide, debug mode"
    if image is None:
        text = "there is no PCR0: it cannot be told whether the enclave is being debugged"
        findings.check("nitro.debug", Group.POLICY, None, text, source=source)
        return
    ok = any(image)
    text = "not in debug mode" if ok else "PCR0 is zero: the enclave runs in debug mode, where its parent reads along"
    findings.check("nitro.debug", Group.POLICY, ok, text, actual=image, source=source)


def _timestamp(findings: Findings, document: Document, at: datetime, policy: NitroPolicy, context: Context) -> None:
    age_ms = context.now_ms - document.timestamp_ms
    old = age_ms > policy.max_age_s * 1000
    source = "policy: nitro.max_age_s" if old else "policy: nitro.future_skew_s"
    ok = -policy.future_skew_s * 1000 <= age_ms and not old
    if ok:
        text = "the document is of now"
    elif old:
        text = f"the document is {age_ms / 1000:.3f} s old"
    else:
        text = f"the document is from {-age_ms / 1000:.3f} s after now"
    expected = f"at most {policy.max_age_s} s before now, and {policy.future_skew_s} s after"
    findings.check("nitro.timestamp", Group.FRESH, ok, text, expected=expected, actual=at.isoformat(), source=source)


def _measured(findings: Findings, document: Document, policy: NitroPolicy, context: Context) -> None:
    matched = [_register(findings, document, index, policy.pcrs[index]) for index in sorted(policy.pcrs)]
    name, source = "nitro.measurement", "policy: nitro.pcrs"
    if not any(registers <= policy.pcrs.keys() for registers in _IDENTIFYING):
        text = "the policy has no reference values that tell what runs: of PCR0, of PCR8, or of PCR1 and PCR2"
        required = context.policy.require.measurement
        findings.check(name, Group.MEASURED, None, text, source=source, required=required)
        return
    text = "what runs is among the reference values" if all(matched) else "what runs is not among the reference values"
    findings.check(name, Group.MEASURED, all(matched), text, source=source)


def _register(findings: Findings, document: Document, index: int, references: list[str]) -> bool:
    actual = document.pcrs.get(index)
    ok = actual is not None and actual.hex() in references
    text = f"PCR{index} is " + ("missing" if actual is None else "a reference value" if ok else "no reference value")
    expected, source = " or ".join(references), f"policy: nitro.pcrs.{index}"
    name = f"nitro.pcr{index}"
    return findings.check(name, Group.MEASURED, ok, text, expected=expected, actual=actual, source=source)


def _public_key(findings: Findings, document: Document, context: Context) -> None:
    if context.binding is None:
        return
    name, expected = "nitro.public_key", context.binding.sealing_key
    source = "policy: require.binding"
    if document.public_key is None:
        text = "the field is not used; user data commits to the keys"
        findings.check(name, Group.BOUND, None, text, source=source, required=False)
        return
    ok = document.public_key == expected
    text = "is the attester's sealing key" if ok else "is another key than the attester's sealing key"
    findings.check(name, Group.BOUND, ok, text, expected=expected, actual=document.public_key, source=source)


def _claims(document: Document, chain: tuple[Cert, ...], at: datetime) -> dict[str, Any]:
    image, leaf = document.pcrs.get(0), chain[0]
    return {
        "module_id": document.module_id,
        "timestamp_ms": document.timestamp_ms,
        "time": str(at),
        "digest": document.digest,
        "pcrs": {str(index): pcr.hex() for index, pcr in sorted(document.pcrs.items()) if pcr.strip(b"\0")},
        "n_pcrs": len(document.pcrs),
        "debug": image is not None and not any(image),
        "user_data": (document.user_data or b"").hex(),
        "nonce": (document.nonce or b"").hex(),
        "public_key": (document.public_key or b"").hex(),
        "leaf_valid": [str(leaf.begin), str(leaf.end)],
        "certificate": leaf.sha256,
        "cabundle": [each.sha256 for each in reversed(chain[1:])],
    }
