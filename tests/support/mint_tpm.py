"""Quotes of a TPM of our own, in the exact formats, under an authority that only tests trust."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ObjectIdentifier

from hanzo_compute.attestation.tpm.public import PublicArea, parse, primary, spki
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.pki import Issued, Key, issue

NONCE = bytes(range(32))
SHA1, SHA256, SHA384 = 0x0004, 0x000B, 0x000C
NAMES = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384"}
AK = 0x00050072
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign."""
EK = 0x000300B2
"""fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt."""
FIRMWARE = 0x0007000200010000
SWTPM = 0x2019102300163636
AES_128_CFB = bytes.fromhex("000600800043")
NULL = bytes.fromhex("0010")
ECDSA_SHA256 = bytes.fromhex("0018000b")
EK_PURPOSE = x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.1")])
PCRS: Mapping[int, bytes] = {index: hashlib.sha256(bytes([index])).digest() for index in range(8)}
_CURVES = {"secp256r1": 3, "secp384r1": 4, "secp521r1": 5}

RSA_KEY = rsa.generate_private_key(65537, 2048)
"""One for all tests: making one takes longer than using it."""


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def public(
    key: Key, attributes: int, *, algorithm: int = SHA256, symmetric: bytes = NULL, scheme: bytes = NULL
) -> bytes:
    """TPMT_PUBLIC."""
    numbers = key.public_key().public_numbers()
    head = algorithm.to_bytes(2, "big") + attributes.to_bytes(4, "big") + sized(b"") + symmetric + scheme
    if isinstance(numbers, rsa.RSAPublicNumbers):
        size = key.key_size
        return b"\x00\x01" + head + size.to_bytes(2, "big") + bytes(4) + sized(numbers.n.to_bytes(size // 8, "big"))
    width = (key.key_size + 7) // 8
    point = sized(numbers.x.to_bytes(width, "big")) + sized(numbers.y.to_bytes(width, "big"))
    return b"\x00\x23" + head + _CURVES[numbers.curve.name].to_bytes(2, "big") + NULL + point


def area(tpmt: bytes) -> PublicArea:
    return parse(tpmt, "a key")


def attest(
    signer: bytes,
    extra: bytes,
    selection: Sequence[tuple[int, Sequence[int]]],
    digest: bytes,
    *,
    magic: int = 0xFF544347,
    kind: int = 0x8018,
    clock: int = 1307,
    resets: int = 2,
    restarts: int = 1,
    safe: int = 1,
    firmware: int = FIRMWARE,
) -> bytes:
    """TPMS_ATTEST."""
    banks = b"".join(
        bank.to_bytes(2, "big") + b"\x03" + sum(1 << index for index in indices).to_bytes(3, "little")
        for bank, indices in selection
    )
    clock_info = clock.to_bytes(8, "big") + resets.to_bytes(4, "big") + restarts.to_bytes(4, "big") + bytes([safe])
    head = magic.to_bytes(4, "big") + kind.to_bytes(2, "big") + sized(signer) + sized(extra)
    return head + clock_info + firmware.to_bytes(8, "big") + len(selection).to_bytes(4, "big") + banks + sized(digest)


def sign(key: Key, message: bytes, algorithm: int = SHA256, *, pss: bool = False) -> bytes:
    """TPMT_SIGNATURE."""
    hashed: hashes.HashAlgorithm = {SHA1: hashes.SHA1(), SHA256: hashes.SHA256(), SHA384: hashes.SHA384()}[algorithm]
    tail = algorithm.to_bytes(2, "big")
    if isinstance(key, rsa.RSAPrivateKey):
        if pss:
            salted = padding.PSS(padding.MGF1(hashed), padding.PSS.MAX_LENGTH)
            return b"\x00\x16" + tail + sized(key.sign(message, salted, hashed))
        return b"\x00\x14" + tail + sized(key.sign(message, padding.PKCS1v15(), hashed))
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashed)))
    width = (key.key_size + 7) // 8
    return b"\x00\x18" + tail + sized(r.to_bytes(width, "big")) + sized(s.to_bytes(width, "big"))


@dataclass(frozen=True)
class MintedTpm:
    """A TPM: an endorsement key with its certificate, and an attestation key below it."""

    root: Issued
    authority: Issued
    ek: Key
    ek_certificate: Issued
    ak: Key
    ak_attributes: int = AK
    scheme: bytes = ECDSA_SHA256
    quote_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ek_area(self) -> PublicArea:
        return area(public(self.ek, EK, symmetric=AES_128_CFB))

    @property
    def ak_area(self) -> PublicArea:
        return area(public(self.ak, self.ak_attributes, scheme=self.scheme))

    @property
    def names(self) -> tuple[bytes, bytes]:
        """What a credential is made for."""
        return self.ek_area.name, self.ak_area.name

    @property
    def qualified_signer(self) -> bytes:
        return self.ak_area.qualified_name(self.ek_area.qualified_name(primary(0x4000000B)))

    def with_(self, **changes: Any) -> MintedTpm:
        return replace(self, **changes)

    def quote(self, nonce: bytes = NONCE, **fields: Any) -> dict[str, bytes]:
        """The files of a quote over :data:`PCRS`, with what ties it to the authority."""
        message = self.message(nonce, **fields)
        values = fields.get("values", {SHA256: PCRS})
        shown = {
            NAMES[bank]: {str(index): value.hex() for index, value in each.items()} for bank, each in values.items()
        }
        return {
            "message": message,
            "signature": sign(self.ak, message),
            "pcrs": json.dumps(shown).encode(),
            "ak": self.ak_area.raw,
            "ek_tpm2b": sized(self.ek_area.raw),
            "ek_cert": self.ek_certificate.der,
            "ca": self.authority.pem,
            "ca_root": self.root.pem,
        }

    def message(self, nonce: bytes = NONCE, **fields: Any) -> bytes:
        values: Mapping[int, Mapping[int, bytes]] = fields.pop("values", {SHA256: PCRS})
        digest = hashlib.sha256(b"".join(value for each in values.values() for value in each.values())).digest()
        fields = {**self.quote_fields, **fields}
        selection = fields.pop("selection", [(bank, list(each)) for bank, each in values.items()])
        digest = fields.pop("digest", digest)
        return attest(fields.pop("signer", self.qualified_signer), nonce, selection, digest, **fields)

    def evidence(self, **files: bytes) -> Evidence:
        """A quote, with other contents of some files."""
        return evidence({**self.quote(), **files})

    def resigned(self, message: bytes) -> Evidence:
        """A message that this TPM's key signed, whatever it says."""
        return self.evidence(message=message, signature=sign(self.ak, message))


def evidence(files: Mapping[str, bytes]) -> Evidence:
    return Evidence(Platform.TPM, files)


def ek_certificate(authority: Issued, key: Key, *, model: str = "Minted", **given: Any) -> Issued:
    """By the TCG's profile."""
    kinds = {"2.23.133.2.1": "id:54455354", "2.23.133.2.2": model, "2.23.133.2.3": "id:00070002"}
    said = x509.Name([x509.NameAttribute(ObjectIdentifier(kind), text) for kind, text in kinds.items()])
    usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
    extensions = [
        (x509.SubjectAlternativeName([x509.DirectoryName(said)]), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (given.pop("usage", usage), True),
        (given.pop("purpose", EK_PURPOSE), False),
    ]
    return issue("TPM", authority, key=key, usage=False, extensions=extensions, digest=hashes.SHA256(), **given)


def minted() -> MintedTpm:
    """A TPM under a root and an authority of its own."""
    root = issue("Minted TPM root", ca=True)
    authority = issue("Minted TPM authority", root, ca=True, path_length=0)
    ek = RSA_KEY
    return MintedTpm(root, authority, ek, ek_certificate(authority, ek), ec.generate_private_key(ec.SECP256R1()))


def spki_digest(key: Key) -> str:
    return hashlib.sha256(spki(key.public_key())).hexdigest()
