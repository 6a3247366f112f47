"""Statements: the signed form against eth_account and jcs, and committed vectors of the encoding."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import jcs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.model import statement
from hanzo_compute.model.outcome import Category, Outcome, Output, Usage
from hanzo_compute.model.statement import P256_ORDER, Settlement, Subject, Terms
from hanzo_compute.model.tariff import DEFAULT, Rates
from hanzo_compute.ports import KeyKind
from tests.support.eip712 import encode_typed_data, keccak

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "statements.json").read_text())


def rates() -> Rates:
    found = DEFAULT.find("wasm", "fast", 0)
    assert found is not None
    return found


def reference_digest(body: dict[str, Any], root: bytes) -> bytes:
    """EIP-712 by eth_account."""
    names = ["job", "attempt", "order", "units", "bodyRoot"]
    kinds = ["bytes32", "uint64", "bytes32", "uint256", "bytes32"]
    settlement = body["settlement"]
    message = encode_typed_data(
        domain_data={
            "name": "Hanzo Compute",
            "version": "1",
            "chainId": settlement["chain_id"],
            "verifyingContract": settlement["contract"],
        },
        message_types={"Execution": [{"name": n, "type": k} for n, k in zip(names, kinds, strict=True)]},
        message_data={
            "job": hashlib.sha256(body["job"].encode()).digest(),
            "attempt": body["attempt"],
            "order": bytes.fromhex(settlement["order"][2:]),
            "units": int(body["price"]["units"]),
            "bodyRoot": root,
        },
    )
    return keccak(b"\x19" + message.version + message.header + message.body)


def reference_root(body: dict[str, Any]) -> bytes:
    """The root by jcs."""
    digests = {name: hashlib.sha256(jcs.canonicalize(value)).hexdigest() for name, value in body.items()}
    return hashlib.sha256(jcs.canonicalize(digests)).digest()


counts = st.integers(0, 2**40)


@given(
    job=st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26),
    attempt=st.integers(1, 2**31),
    usage=st.builds(Usage, wall_ms=counts, memory_mib_ms=counts, fuel=st.none() | counts),
    chain=st.integers(0, 2**53 - 1),
    contract=st.binary(min_size=20, max_size=20),
    order=st.binary(min_size=32, max_size=32),
    most=st.integers(0, 2**200),
)
def test_root_and_digest_are_those_of_other_implementations(
    job: str, attempt: int, usage: Usage, chain: int, contract: bytes, order: bytes, most: int
) -> None:
    settlement = Settlement(chain, f"0x{contract.hex()}", f"0x{order.hex()}")
    subject = Subject(f"j-{job}", attempt, "local-1", "ab" * 32, "cd" * 32, None, "wasm")
    outcome = Outcome(category=Category.TRAP, trap="unreachable", usage=usage, runtime_version="wasmtime 50")
    body = statement.body(subject, outcome, Terms(rates(), most, settlement))
    assert tuple(body) == statement.FIELDS
    root = statement.root(statement.field_digests(body))
    assert root == reference_root(body)
    assert statement.signing_digest(body, root) == reference_digest(body, root)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_committed_vectors(vector: dict[str, Any]) -> None:
    body = vector["body"]
    digests = statement.field_digests(body)
    root = statement.root(digests)
    digest = statement.signing_digest(body, root)
    assert digests == vector["fields"]
    assert (root.hex(), digest.hex()) == (vector["body_root"], vector["digest"])
    assert (reference_root(body), reference_digest(body, root)) == (root, digest)
    key, signature = bytes.fromhex(vector["key"]), bytes.fromhex(vector["signature"])
    assert statement.holds(key, signature, digest)
    assert statement.key_id(key) == vector["key_id"]


def test_outputs_are_named_by_what_they_hold() -> None:
    blob = "b1-" + "ef" * 32
    outputs = [
        Output(name="stdout", size=5, inline_base64="aGVsbG8="),
        Output(name="big", size=9, blob=blob),
    ]
    outcome = Outcome(category=Category.OK, exit_code=0, outputs=outputs)
    subject = Subject("j-1", 1, "a", "", "", None, "wasm")
    body = statement.body(subject, outcome, Terms(rates(), 10))
    assert [each["sha256"] for each in body["outputs"]] == [hashlib.sha256(b"hello").hexdigest(), "ef" * 32]


def test_a_signature_has_one_form() -> None:
    vault, digest = MemoryVault(Random(3)), hashlib.sha256(b"x").digest()
    key = vault.public_key("agent", KeyKind.P256)
    signature = vault.sign("agent", KeyKind.P256, digest)
    assert statement.holds(key, signature, digest)
    r, s = signature[:32], int.from_bytes(signature[32:])
    assert not statement.holds(key, r + (P256_ORDER - s).to_bytes(32), digest)  # the high twin
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(64), r + bytes(32), b"\xff" * 64):
        assert not statement.holds(key, wrong, digest)
    assert not statement.holds(key, signature, hashlib.sha256(b"y").digest())
    assert not statement.holds(b"no key", signature, digest)
    ed25519 = vault.public_key("log", KeyKind.ED25519)
    assert not statement.holds(ed25519, signature, digest)


@pytest.mark.parametrize(
    ("field", "value"),
    [("contract", "0x00"), ("contract", "0X" + "00" * 20), ("order", "00" * 32), ("order", "0x" + "AB" * 32)],
)
def test_words_have_one_form(field: str, value: str) -> None:
    terms = Terms(rates(), 0, Settlement(**{field: value}))  # type: ignore[arg-type]
    body = statement.body(Subject("j", 1, "a", "", "", None, "wasm"), Outcome(category=Category.OK), terms)
    with pytest.raises(ValueError, match=r"hex"):
        statement.signing_digest(body, bytes(32))


def test_terms_survive_the_lease() -> None:
    terms = Terms(rates(), 2**90, Settlement(5, "0x" + "01" * 20, "0x" + "02" * 32), 0)
    assert Terms.from_json(json.loads(json.dumps(terms.as_json()))) == terms
