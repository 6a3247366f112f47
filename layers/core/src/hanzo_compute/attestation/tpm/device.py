"""Which TPM a quote is of: what makes its attestation key one of a TPM that is known.

There are four ways, of which the first that applies must hold: the hardware's report of a confidential VM names the
key; the operator enrolled it; a certificate names it; or it belongs to an endorsement key that a certificate or the
operator names. The last takes credential activation: the qualified name in a quote is what the quote says of itself,
and endorsement keys are public, so a key outside of any TPM could say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hanzo_compute.attestation.checks import Context, Findings, Group
from hanzo_compute.attestation.tpm import chains
from hanzo_compute.attestation.tpm.chains import Trust
from hanzo_compute.attestation.tpm.keys import Keys, certified_key, fingerprint
from hanzo_compute.attestation.tpm.policy import TpmPolicy
from hanzo_compute.attestation.tpm.public import (
    DECRYPT,
    ENDORSEMENT,
    FIXED_TPM,
    HIERARCHIES,
    RESTRICTED,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
    primary,
    spki,
)
from hanzo_compute.attestation.tpm.quote import Attest

_REFERENCE_CODE: Final = 0x00163636
"""Low word of the firmware version of TCG's reference code, which swtpm and the simulators are made of."""
_SOFTWARE_MODELS: Final = ("swtpm", "simulator")
_OBJECT: Final = "TPM 2.0 Library part 2, section 8.3"
_NAMES: Final = "TPM 2.0 Library part 1, section 16"


class Basis(StrEnum):
    """What an attestation key is trusted for."""

    TEE = "tee"
    ENROLLED = "enrolled"
    CERTIFICATE = "certificate"
    ENDORSEMENT = "endorsement"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of the TPM."""

    basis: Basis
    software: bool


def examine(
    keys: Keys,
    attest: Attest,
    files: Mapping[str, bytes],
    context: Context,
    policy: TpmPolicy,
    findings: Findings,
    *,
    tee: bool,
) -> Device:
    """Check whose the attestation key is."""
    basis = _basis(keys, policy, tee)
    known = chains.authorities(files, context, policy)
    _ak_attributes(keys, findings)
    _qualified_name(keys, attest, findings)
    trust = Trust.OPERATOR if basis is Basis.ENROLLED else Trust.NOBODY
    if keys.ak_certificate is not None:
        wanted = basis is Basis.CERTIFICATE
        # A key that was handed in is what its signature is genuine by; whose it is, is another question.
        group = Group.GENUINE if wanted and not keys.ak_handed_in else Group.POLICY
        found = chains.examine(
            keys.ak_certificate,
            known,
            context,
            findings,
            prefix="tpm.ak_cert",
            group=group,
            required=wanted,
            signs=True,
        )
        trust = found if wanted else trust
    if keys.ek is not None or keys.ek_certificate is not None:
        wanted = basis is Basis.ENDORSEMENT
        found = _endorsement(keys, attest, known, context, policy, findings, wanted)
        trust = found if wanted else trust
    ok = basis is Basis.TEE or trust.good
    text = {
        Basis.TEE: "the report of the hardware vouches for the attestation key, if its checks hold",
        Basis.ENROLLED: "the operator enrolled the attestation key",
        Basis.CERTIFICATE: "the certificate of the attestation key",
        Basis.ENDORSEMENT: "the endorsement key that the attestation key says it belongs to",
        Basis.NOTHING: "nothing says of which TPM the attestation key is: no certificate, and no key that is known",
    }[basis]
    if basis in {Basis.CERTIFICATE, Basis.ENDORSEMENT}:
        text += f" is trusted by the {trust.value}" if ok else " is not trusted: see its checks"
    unknown = trust is Trust.UNKNOWN
    findings.check(
        "tpm.identity",
        Group.POLICY,
        None if unknown else ok,
        text,
        actual=basis.value,
        source="policy: tpm.roots",
        missing="ca" if unknown else None,
    )
    software = _software(keys, attest, policy, findings, basis, trust)
    return Device(basis, software)


def _basis(keys: Keys, policy: TpmPolicy, tee: bool) -> Basis:
    if tee:
        return Basis.TEE
    names = {fingerprint(keys.ak), keys.ak_area.name.hex() if keys.ak_area else ""}
    if names & set(policy.attestation_keys):
        return Basis.ENROLLED
    if keys.ak_certificate is not None:
        return Basis.CERTIFICATE
    return Basis.ENDORSEMENT if keys.ek is not None else Basis.NOTHING


def _ak_attributes(keys: Keys, findings: Findings) -> None:
    """A key that is not restricted signs whatever it is given, a quote that no TPM made too."""
    if keys.ak_area is None:
        text = "the attestation key came without its public area: what it may do is not known"
        findings.check("tpm.ak_attributes", Group.POLICY, None, text, source=_OBJECT, required=False)
        return
    wanted = FIXED_TPM | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN
    ok = keys.ak_area.has(FIXED_TPM, SENSITIVE_DATA_ORIGIN, RESTRICTED, SIGN) and not keys.ak_area.has(DECRYPT)
    text = (
        "of this TPM alone, restricted, and signs" if ok else "not of one TPM alone, restricted, and for signing only"
    )
    findings.check(
        "tpm.ak_attributes",
        Group.POLICY,
        ok,
        f"the attestation key is {text}",
        expected=f"0x{wanted:08x} set, 0x{DECRYPT:08x} clear",
        actual=f"0x{keys.ak_area.attributes:08x}",
        source=_OBJECT,
    )


def _ek_name(keys: Keys) -> bytes | None:
    return keys.ek_area.qualified_name(primary(ENDORSEMENT)) if keys.ek_area else None


def _qualified_name(keys: Keys, attest: Attest, findings: Findings) -> None:
    """The signer that a quote names must be the key that it is checked with; of an unknown parent it cannot be told."""
    ok: bool | None = None
    text = "the parent of the attestation key is not known, nor so its qualified name"
    if keys.ak_area is not None:
        parents = {primary(handle): f"a primary key of the {name} hierarchy" for handle, name in HIERARCHIES.items()}
        ek = _ek_name(keys)
        if ek is not None:
            parents[ek] = "a child of the endorsement key"
        names = {keys.ak_area.qualified_name(parent): what for parent, what in parents.items()}
        if attest.qualified_signer in names:
            ok, text = True, f"the attestation key is {names[attest.qualified_signer]}, the quote says"
        elif attest.qualified_signer[:2] != keys.ak_area.name[:2]:
            ok, text = False, "the quote names a signer whose name is made with another hash than the attestation key's"
    findings.check(
        "tpm.qualified_signer",
        Group.POLICY,
        ok,
        text,
        actual=attest.qualified_signer,
        source=_NAMES,
        required=ok is not None,
    )


def _endorsement(
    keys: Keys,
    attest: Attest,
    known: chains.Authorities,
    context: Context,
    policy: TpmPolicy,
    findings: Findings,
    wanted: bool,
) -> Trust:
    """The endorsement key, and what ties the attestation key to it; who trusts it."""
    trust = Trust.NOBODY
    pinned = keys.ek is not None and fingerprint(keys.ek) in policy.endorsement_keys
    if keys.ek_certificate is not None:
        trust = chains.examine(
            keys.ek_certificate,
            known,
            context,
            findings,
            prefix="tpm.ek_cert",
            group=Group.POLICY,
            required=wanted and not pinned,
            signs=False,
        )
        _ek_key(keys, findings, wanted)
    _ek_attributes(keys, findings, wanted)
    _tie(keys, attest, context, policy, findings, wanted)
    return Trust.OPERATOR if pinned else trust


def _ek_key(keys: Keys, findings: Findings, wanted: bool) -> None:
    assert keys.ek is not None
    assert keys.ek_certificate is not None
    ok = spki(keys.ek) == spki(certified_key(keys.ek_certificate, "ek_cert"))
    text = "the endorsement key is " + ("the one" if ok else "another than the one") + " of its certificate"
    findings.check("tpm.ek_key", Group.POLICY, ok, text, required=wanted)


def _ek_attributes(keys: Keys, findings: Findings, wanted: bool) -> None:
    if keys.ek_area is None:
        text = "the endorsement key came without its public area (ek_tpm2b): its name is not known"
        findings.check("tpm.ek_attributes", Group.POLICY, None, text, source=_OBJECT, required=wanted)
        return
    ok = keys.ek_area.has(FIXED_TPM, SENSITIVE_DATA_ORIGIN, RESTRICTED, DECRYPT) and not keys.ek_area.has(SIGN)
    text = (
        "of this TPM alone, restricted, and decrypts" if ok else "not of one TPM alone, restricted, and for decryption"
    )
    findings.check(
        "tpm.ek_attributes",
        Group.POLICY,
        ok,
        f"the endorsement key is {text}",
        actual=f"0x{keys.ek_area.attributes:08x}",
        source=_OBJECT,
        required=wanted,
    )


def _tie(keys: Keys, attest: Attest, context: Context, policy: TpmPolicy, findings: Findings, wanted: bool) -> None:
    pair = (keys.ek_area.name, keys.ak_area.name) if keys.ek_area and keys.ak_area else None
    # With any other endorsement key, one that no TPM has too, an activation says nothing of this one.
    activated = pair in context.activated
    ek = _ek_name(keys)
    below = keys.ak_area is not None and ek is not None and attest.qualified_signer == keys.ak_area.qualified_name(ek)
    ok = activated or below
    text = "the attestation key is below the endorsement key" if below else "nothing ties the two keys together"
    text = "the attestation key was activated with the endorsement key" if activated else text
    findings.check("tpm.ek_ak", Group.POLICY, ok, text, source=_NAMES, required=wanted)
    text = (
        "the credential was activated" if activated else "no credential of the verifier was activated with these keys"
    )
    findings.check(
        "tpm.activation",
        Group.POLICY,
        activated or None,
        text,
        source="policy: tpm.activation",
        required=wanted and policy.activation,
    )


def _software(keys: Keys, attest: Attest, policy: TpmPolicy, findings: Findings, basis: Basis, trust: Trust) -> bool:
    described = [chains.describe(each) for each in (keys.ek_certificate, keys.ak_certificate) if each is not None]
    for each in described:
        findings.claims.update(each)
    models = [each.get("model", "").lower() for each in described]
    software = attest.firmware & 0xFFFFFFFF == _REFERENCE_CODE or any(
        word in model for model in models for word in _SOFTWARE_MODELS
    )
    findings.claims["software"] = software
    excused = policy.software and trust is Trust.OPERATOR
    ok = not software or excused or basis is Basis.TEE
    text = "says nothing of being a software TPM"
    if software:
        text = "software TPM: " + ("the operator trusts its authority" if ok else "not accepted")
    findings.check(
        "tpm.software",
        Group.POLICY,
        ok,
        text,
        actual=f"0x{attest.firmware:016x}",
        source="policy: tpm.software",
    )
    return software
