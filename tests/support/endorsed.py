"""Runners with a TPM under an authority: its endorsement key has a certificate, and a credential that was made for its
attestation key shows that the two are in one TPM. Certificates of the authority are not in its evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.x509.oid import AuthorityInformationAccessOID

from hanzo_compute.attestation.binding import Binding
from hanzo_compute.attestation.tpm.credential import _kdfa
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports import FetchedCollateral, MissingCollateral
from hanzo_compute.ports.attesters import Challenge, Found
from tests.support.attested import PCRS as ENROLLED_PCRS
from tests.support.attested import EnrolledTpm
from tests.support.mint_tpm import EK_PURPOSE, PCRS, RSA_KEY, MintedTpm, sized
from tests.support.pki import Issued, issue

_WHERE = x509.AccessDescription(
    AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example/ca.crt")
)


def _minted() -> MintedTpm:
    root = issue("Root of TPMs", ca=True)
    authority = issue("Authority of TPMs", root, ca=True, path_length=0)
    usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage, True),
        (EK_PURPOSE, False),
        (x509.AuthorityInformationAccess([_WHERE]), False),
    ]
    leaf: Issued = issue("TPM", authority, key=RSA_KEY, usage=False, extensions=extensions)
    return MintedTpm(root, authority, RSA_KEY, leaf, ec.generate_private_key(ec.SECP256R1()))


@dataclass
class EndorsedTpm:
    """An attester, whose attestation key is known to nobody."""

    minted: MintedTpm = field(default_factory=_minted)

    def policy(self, enrolled: EnrolledTpm, *more: str, roots: bool = True) -> str:
        """A policy that releases keys to this TPM (with ``roots``) and to one that was enrolled, each in its state."""
        document: dict[str, Any] = json.loads(enrolled.policy(*more))
        both = {index: [value, PCRS[int(index)].hex()] for index, value in ENROLLED_PCRS.items()}
        root = self.minted.root.certificate.fingerprint(hashes.SHA256()).hex()
        document["tpm"] |= {"pcrs": {"sha256": both}, "not_before": False, "roots": [root] if roots else []}
        return json.dumps(document)

    def collateral(self) -> FetchedCollateral:
        """The certificates of its authority."""
        return FetchedCollateral(
            {Platform.TPM: {"ca": self.minted.authority.pem, "ca_root": self.minted.root.pem}},
        )

    def no_collateral(self) -> FetchedCollateral:
        """What there is while nobody gives them."""
        return FetchedCollateral({}, (MissingCollateral(Platform.TPM, "ca", "its service does not answer", 5),))

    def detect(self) -> Sequence[Found]:
        return ()

    def collect(self, binding: Challenge) -> list[Evidence]:
        bound = Binding(binding.nonce, binding.signing_key, binding.sealing_key)
        return self.answer(bound.qualifying_data())

    def answer(self, nonce: bytes, only: Platform | None = None) -> list[Evidence]:
        files = {name: data for name, data in self.minted.quote(nonce).items() if name not in ("ak", "ca", "ca_root")}
        return [Evidence(Platform.TPM, files | {"ak_tpm2b": sized(self.minted.ak_area.raw)})]

    def activate(self, credential: bytes) -> bytes:
        """TPM2_ActivateCredential, in the words of part 1, section 24."""
        size = int.from_bytes(credential[:2])
        blob, encrypted = credential[2 : 2 + size], credential[4 + size :]
        seed = RSA_KEY.decrypt(encrypted, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0"))
        identity = blob[2 + int.from_bytes(blob[:2]) :]
        key = _kdfa(_sha256, seed, b"STORAGE", self.minted.ak_area.name, 16)
        decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
        return (decryptor.update(identity) + decryptor.finalize())[2:]


def _sha256(data: bytes = b"") -> Any:
    import hashlib

    return hashlib.sha256(data)
