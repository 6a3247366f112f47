"""The keys and certificates that come with a quote."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import Certificate

from hanzo_compute.attestation.checks import Findings, Group, Unreadable
from hanzo_compute.attestation.tpm import chains
from hanzo_compute.attestation.tpm.azure import HclReport
from hanzo_compute.attestation.tpm.public import PublicArea, PublicKey, load, spki, supported


@dataclass(frozen=True, slots=True)
class Keys:
    """What is there of the attestation key (AK) and the endorsement key (EK)."""

    ak: PublicKey
    ak_area: PublicArea | None
    ak_handed_in: bool
    """Whether the AK was given as a key, and not only by a certificate or Azure's runtime data."""
    ak_certificate: Certificate | None
    ek: PublicKey | None
    ek_area: PublicArea | None
    ek_certificate: Certificate | None


def read(files: Mapping[str, bytes], hcl: HclReport | None, findings: Findings) -> Keys:
    """The keys, and the check that all that is given as the AK is one key.

    Raises:
        Unreadable: there is no AK, or something is no key or certificate.
    """
    handed_in, area = _key(files, ("ak", "ak_tpm2b"))
    certificate = chains.load_leaf(files["ak_cert"], "ak_cert") if "ak_cert" in files else None
    given = {
        "HCLAkPub": hcl.ak if hcl else None,
        **handed_in,
        "ak_cert": _certified(certificate, "ak_cert"),
    }
    found = {name: key for name, key in given.items() if key is not None}
    if not found:
        raise Unreadable("no attestation key came with the quote: ak, ak_tpm2b, ak_cert or hcl_report")
    same = len({spki(key) for key in found.values()}) == 1
    text = f"{', '.join(found)}: {'one key' if same else 'different keys'}"
    findings.check("tpm.ak_key", Group.GENUINE, same, text)
    endorsement, ek_area = _key(files, ("ek_tpm2b",))
    ek_certificate = chains.load_leaf(files["ek_cert"], "ek_cert") if "ek_cert" in files else None
    ek = next(iter(endorsement.values()), None) or _certified(ek_certificate, "ek_cert")
    ak = next(iter(found.values()))
    return Keys(ak, area, bool(handed_in), certificate, ek, ek_area, ek_certificate)


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of a key's SubjectPublicKeyInfo, hex."""
    return hashlib.sha256(spki(key)).hexdigest()


def certified_key(certificate: Certificate, what: str) -> PublicKey:
    """The key of a certificate. Raises Unreadable."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unreadable(f"the key of {what} cannot be read: {error}") from None
    return supported(key, f"the key of {what}")


def _certified(certificate: Certificate | None, what: str) -> PublicKey | None:
    return certified_key(certificate, what) if certificate is not None else None


def _key(files: Mapping[str, bytes], names: tuple[str, ...]) -> tuple[dict[str, PublicKey], PublicArea | None]:
    keys: dict[str, PublicKey] = {}
    area = None
    for name in names:
        if name in files:
            keys[name], found = load(files[name], name)
            area = area or found
    return keys, area
