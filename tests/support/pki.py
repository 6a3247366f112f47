"""Certificates of an authority of our own, for evidence that tests mint: no policy of the product trusts it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOT_BEFORE = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
NOT_AFTER = datetime.datetime(2044, 1, 1, tzinfo=datetime.UTC)
NOW_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z, inside of every certificate that is not made otherwise."""

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def name(common: str, **parts: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    attributes += [x509.NameAttribute(getattr(NameOID, kind.upper()), text) for kind, text in parts.items()]
    return x509.Name(attributes)


def issue(
    subject: str | x509.Name,
    issuer: Issued | None = None,
    *,
    key: Key | None = None,
    ca: bool = False,
    path_length: int | None = None,
    not_before: datetime.datetime = NOT_BEFORE,
    not_after: datetime.datetime = NOT_AFTER,
    serial: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    usage: bool = True,
    digest: hashes.HashAlgorithm | None = None,
    padding: Any = None,
) -> Issued:
    """A certificate by ``issuer``, or by itself. An authority, and what may sign, say so (unless not ``usage``)."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    subject = name(subject) if isinstance(subject, str) else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if usage:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        builder = builder.add_extension(_usage(ca), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    by = issuer.key if issuer else key
    given = {"rsa_padding": padding} if padding is not None else {}
    return Issued(builder.sign(by, digest or hashes.SHA384(), **given), key)


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
