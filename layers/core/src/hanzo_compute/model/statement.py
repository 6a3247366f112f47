"""The statement: what an agent says that an attempt was and came to, and the form in which it signs that.

``bodyRoot`` = SHA-256(JCS({field: hex SHA-256(JCS(value))})), so that a verification can name the field that was
changed. The signature is P-256 with low s over the EIP-712 digest of an ``Execution`` that holds the root: with a chain
configured the same signature is verified by a contract.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from hanzo_compute.model import canonical
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.tariff import Rates

EXECUTION: Final = "Execution(bytes32 job,uint64 attempt,bytes32 order,uint256 units,bytes32 bodyRoot)"
DOMAIN: Final = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
NAME: Final = "Hanzo Compute"
VERSION: Final = "1"

P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""n of SEC 2, section 2.4.2: a signature with s over n/2 is refused, as its twin would be another signature."""

FIELDS: Final = (
    "job",
    "attempt",
    "agent",
    "spec",
    "code",
    "input",
    "outputs",
    "exit",
    "usage",
    "price",
    "tier",
    "evidence",
    "runtime",
    "settlement",
)

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where a statement would be settled. Zeros where no chain is configured: such a statement never settles."""

    chain_id: int = 0
    contract: str = "0x" + 40 * "0"
    order: str = "0x" + 64 * "0"

    def as_json(self) -> Body:
        """As it stands in the lease and in the statement."""
        return {"chain_id": self.chain_id, "contract": self.contract, "order": self.order}


@dataclass(frozen=True, slots=True)
class Terms:
    """What an agent agrees to with a lease: how it is paid, and what the requester asked of the place."""

    rates: Rates
    most: int
    """Base units that the attempt costs at most."""
    settlement: Settlement = field(default_factory=Settlement)
    tier: int = 0
    """The privacy tier that the requester asked for."""

    def as_json(self) -> Body:
        """As the lease carries it."""
        return {
            "tariff": self.rates.as_json(),
            "most": str(self.most),
            "settlement": self.settlement.as_json(),
            "tier": self.tier,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Terms:
        """The terms of a lease."""
        return cls(
            _rates(json.dumps(body["tariff"])), int(body["most"]), Settlement(**body["settlement"]), int(body["tier"])
        )


@lru_cache(64)
def _rates(text: str) -> Rates:
    """An agent meets the same rates again and again."""
    return Rates.from_json(json.loads(text))


@dataclass(frozen=True, slots=True)
class Subject:
    """The attempt that a statement is about. Digests are SHA-256, hex."""

    job: str
    attempt: int
    agent: str
    spec: str
    code: str
    input: str | None
    runtime: str
    delivered: int = 0
    """The privacy tier that the runner proved."""
    evidence: str | None = None
    """Of the evidence by which it did; None: the tier is the operator's word."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature (r and s, 64 bytes) by a public key (SubjectPublicKeyInfo, DER)."""

    key: bytes
    signature: bytes

    @property
    def key_id(self) -> str:
        """SHA-256, hex, of the public key."""
        return key_id(self.key)


@dataclass(frozen=True, slots=True)
class Stated:
    """A statement with its root, and who signed it."""

    body: Body
    root: bytes
    signed: Signed

    def as_json(self) -> Body:
        """As it is stored and given to its tenant."""
        return {"body": self.body, "signature": self.signed.signature.hex(), "key": self.signed.key.hex()}


def key_id(public_key: bytes) -> str:
    """How a public key (SubjectPublicKeyInfo, DER) is named: its SHA-256, hex."""
    return hashlib.sha256(public_key).hexdigest()


def body(subject: Subject, outcome: Outcome, terms: Terms) -> Body:
    """The statement about an attempt that came to an outcome: agent and platform make the same one."""
    used = outcome.usage.model_dump(exclude_none=True)
    return {
        "job": subject.job,
        "attempt": subject.attempt,
        "agent": subject.agent,
        "spec": subject.spec,
        "code": subject.code,
        "input": subject.input,
        "outputs": outputs(outcome),
        "exit": end(outcome),
        "usage": used,
        "price": {
            "token": terms.rates.token,
            "units": str(terms.rates.bill(used, terms.most)),
            "most": str(terms.most),
            "tariff": terms.rates.version,
            "rates": terms.rates.digest,
        },
        "tier": {
            "requested": terms.tier,
            "delivered": subject.delivered,
            "basis": "operator" if subject.evidence is None else "evidence",
        },
        "evidence": subject.evidence,
        "runtime": {"name": subject.runtime, "version": outcome.runtime_version},
        "settlement": terms.settlement.as_json(),
    }


def outputs(outcome: Outcome) -> list[Body]:
    """What an outcome left, by its digests."""
    return [
        {"name": each.name, "size": each.size, "sha256": _output_digest(each.inline_base64, each.blob)}
        for each in outcome.outputs
    ]


def end(outcome: Outcome) -> Body:
    """How it ended; what does not apply is left out."""
    given = {"code": outcome.exit_code, "signal": outcome.signal, "trap": outcome.trap}
    flags = {"oom": outcome.oom, "child_oom": outcome.child_oom, "timed_out": outcome.timed_out}
    found: Body = {"category": outcome.category.value, "truncated": list(outcome.truncated), **flags}
    return found | {name: value for name, value in given.items() if value is not None}


def _output_digest(inline: str | None, blob: str | None) -> str:
    if blob is not None:
        return blob.removeprefix("b1-")
    return hashlib.sha256(base64.b64decode(inline or "")).hexdigest()


def field_digests(value: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256, hex, of the canonical form of each field."""
    return {name: canonical.digest(item) for name, item in value.items()}


def root(digests: Mapping[str, str]) -> bytes:
    """``bodyRoot``: SHA-256 of the canonical form of the fields' digests."""
    return hashlib.sha256(canonical.canonical(dict(digests))).digest()


def signing_digest(statement: Mapping[str, Any], body_root: bytes) -> bytes:
    """The 32 bytes that are signed (EIP-712): of a statement with all ``FIELDS``, whose root is given.

    Raises:
        ValueError, KeyError, TypeError: a field that goes into it has a form that none has.
    """
    settlement = statement["settlement"]
    words = (
        hashlib.sha256(statement["job"].encode()).digest(),
        int(statement["attempt"]).to_bytes(32),
        _word(settlement["order"], 32),
        int(statement["price"]["units"]).to_bytes(32),
        body_root,
    )
    execution = keccak(_type_hash(EXECUTION) + b"".join(words))
    return keccak(b"\x19\x01" + _separator(int(settlement["chain_id"]), settlement["contract"]) + execution)


@lru_cache(64)
def _separator(chain_id: int, contract: str) -> bytes:
    name, version = keccak(NAME.encode()), keccak(VERSION.encode())
    place = chain_id.to_bytes(32) + _word(contract, 20).rjust(32, b"\0")
    return keccak(_type_hash(DOMAIN) + name + version + place)


@lru_cache(8)
def _type_hash(of: str) -> bytes:
    return keccak(of.encode())


def _word(text: str, size: int) -> bytes:
    found = bytes.fromhex(text.removeprefix("0x"))
    if len(found) != size or text != f"0x{found.hex()}":
        raise ValueError(f"{text!r} is not 0x and {2 * size} hex digits")
    return found


def keccak(data: bytes) -> bytes:
    """Keccak-256, as Ethereum uses it."""
    from Crypto.Hash import keccak as library

    return library.new(digest_bits=256, data=data).digest()


@lru_cache(1024)
def holds(key: bytes, signature: bytes, digest: bytes) -> bool:
    """Whether a signature (r and s, low s) over a digest was made by the P-256 public key (DER)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if len(signature) != 64 or not 0 < r < P256_ORDER or not 0 < s <= P256_ORDER // 2:
        return False
    public = _public(key)
    if public is None:
        return False
    try:
        public.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


@lru_cache(256)
def _public(key: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        found = load_der_public_key(key)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(found, ec.EllipticCurvePublicKey) or not isinstance(found.curve, ec.SECP256R1):
        return None
    return found
