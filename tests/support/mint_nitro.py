"""Attestation documents of Nitro enclaves, by an authority of our own."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hanzo_compute.model.evidence import Evidence, Platform
from tests.support import pki

ES384 = {1: -35}
PCRS = {index: bytes([index + 1]) * 48 for index in range(5)} | {index: bytes(48) for index in range(5, 16)}


@dataclass(frozen=True)
class Enclave:
    """An enclave's certificate and what is above it, root first."""

    authorities: tuple[pki.Issued, ...]
    leaf: pki.Issued

    @property
    def root(self) -> bytes:
        return self.authorities[0].pem

    def fields(self, **changes: Any) -> dict[str, Any]:
        """What a document states; a change of ``...`` takes a field away."""
        fields = {
            "module_id": "i-0123456789abcdef0-enc0123456789abcdef",
            "digest": "SHA384",
            "timestamp": pki.NOW_MS,
            "pcrs": PCRS,
            "certificate": self.leaf.der,
            "cabundle": [each.der for each in self.authorities],
            "public_key": None,
            "user_data": None,
            "nonce": None,
        }
        return {name: value for name, value in (fields | changes).items() if value is not ...}

    def document(self, **changes: Any) -> bytes:
        """A signed document with changed fields."""
        return self.sign(cbor2.dumps(self.fields(**changes)))

    def sign(self, payload: bytes, *, headers: object = ES384, unprotected: object = None, digest: Any = None) -> bytes:
        """A COSE_Sign1 over any payload, not tagged."""
        protected = headers if isinstance(headers, bytes) else cbor2.dumps(headers)
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        key = self.leaf.key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        halves = decode_dss_signature(key.sign(signed, ec.ECDSA(digest or hashes.SHA384())))
        size = (key.curve.key_size + 7) // 8
        signature = b"".join(half.to_bytes(size, "big") for half in halves)
        return cbor2.dumps([protected, unprotected or {}, payload, signature])


@cache
def authorities() -> tuple[pki.Issued, ...]:
    """Root, region, zone and instance, with the path lengths of the real ones."""
    root = pki.issue(pki.name("aws.nitro-enclaves", organization_name="Amazon"), ca=True)
    region = pki.issue("0123456789abcdef.us-east-1.aws.nitro-enclaves", root, ca=True, path_length=2)
    zone = pki.issue("fedcba9876543210.zonal.us-east-1.aws.nitro-enclaves", region, ca=True, path_length=1)
    return root, region, zone, pki.issue("i-0123456789abcdef0.us-east-1", zone, ca=True, path_length=0)


def enclave(above: Iterable[pki.Issued] | None = None, **leaf: Any) -> Enclave:
    """An enclave; ``leaf`` changes its certificate."""
    chain = tuple(above or authorities())
    hours = datetime.timedelta(hours=3)
    now = datetime.datetime.fromtimestamp(pki.NOW_MS / 1000, datetime.UTC)
    given: dict[str, Any] = {"not_before": now - hours / 2, "not_after": now + hours / 2, **leaf}
    return Enclave(chain, pki.issue("i-0123456789abcdef0-enc0123456789abcdef.us-east-1.aws", chain[-1], **given))


def pairs(entries: Iterable[tuple[object, object]], *, indefinite: bool = True) -> bytes:
    """A map of CBOR with any entries, the same key twice too."""
    items = [cbor2.dumps(key) + cbor2.dumps(value) for key, value in entries]
    head = b"\xbf" if indefinite else bytes((0xA0 | len(items),))
    return head + b"".join(items) + (b"\xff" if indefinite else b"")


def evidence(document: bytes) -> Evidence:
    """A document as evidence."""
    return Evidence(Platform.NITRO, {"doc": document})


def container(document: bytes, events: Mapping[str, bytes], report_data: bytes, config: str) -> bytes:
    """A document with the rest of a dstack container: SCALE, with short compact lengths."""
    parts = [len(events)] + [each for name, payload in events.items() for each in (name.encode(), payload)]
    parts += [report_data, config.encode()]
    texts = [_compact(each) if isinstance(each, int) else _compact(len(each)) + each for each in parts]
    texts[-2] = report_data
    return document + b"".join(texts)


def _compact(value: int) -> bytes:
    return bytes((value << 2,)) if value < 64 else ((value << 2) | 1).to_bytes(2, "little")
