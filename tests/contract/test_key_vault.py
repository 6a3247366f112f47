"""What every KeyVault does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hanzo_compute.adapters.local.vault import FileVault
from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.errors import Conflict, InvalidRequest, PermissionDenied
from hanzo_compute.model.statement import P256_ORDER
from hanzo_compute.ports import KeyKind, KeyVault

Make = Callable[[str], KeyVault]
DIGEST = hashlib.sha256(b"message").digest()
CONTEXT = {"tenant": "acme", "job": "j-1"}


@pytest.fixture(params=["file", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Vaults by name: of one name they have the same keys."""
    if request.param == "file":
        return lambda name: FileVault(tmp_path / name)
    return lambda name: MemoryVault(Random(name))


@pytest.fixture
def vault(make: Make) -> KeyVault:
    return make("one")


def test_it_is_a_vault(vault: KeyVault) -> None:
    assert isinstance(vault, KeyVault)


def test_ed25519(vault: KeyVault) -> None:
    key = load_der_public_key(vault.public_key("log", KeyKind.ED25519))
    assert isinstance(key, ed25519.Ed25519PublicKey)
    signature = vault.sign("log", KeyKind.ED25519, b"any length")
    assert len(signature) == 64
    key.verify(signature, b"any length")
    with pytest.raises(InvalidSignature):
        key.verify(signature, b"another")


def test_p256_has_low_s(vault: KeyVault) -> None:
    key = load_der_public_key(vault.public_key("agent", KeyKind.P256))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    for number in range(200):
        digest = hashlib.sha256(b"%d" % number).digest()
        signature = vault.sign("agent", KeyKind.P256, digest)
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        assert len(signature) == 64
        assert 0 < s <= P256_ORDER // 2
        key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_p256_signs_digests_alone(vault: KeyVault, size: int) -> None:
    with pytest.raises(InvalidRequest, match="32 bytes"):
        vault.sign("agent", KeyKind.P256, bytes(size))


def test_keys_stay(make: Make) -> None:
    first = make("one")
    public = first.public_key("agent", KeyKind.P256), first.public_key("log", KeyKind.ED25519)
    assert public == (first.public_key("agent", KeyKind.P256), first.public_key("log", KeyKind.ED25519))
    again = make("one")
    reverse = again.public_key("log", KeyKind.ED25519), again.public_key("agent", KeyKind.P256)
    assert public == reverse[::-1]
    other = make("two")
    assert other.public_key("agent", KeyKind.P256) != public[0]
    assert first.public_key("agent-2", KeyKind.P256) != public[0]


def test_signatures_are_of_the_key_of_that_name(vault: KeyVault) -> None:
    key = load_der_public_key(vault.public_key("log", KeyKind.ED25519))
    assert isinstance(key, ed25519.Ed25519PublicKey)
    with pytest.raises(InvalidSignature):
        key.verify(vault.sign("log-2", KeyKind.ED25519, b"message"), b"message")


def test_a_key_has_one_kind(vault: KeyVault) -> None:
    vault.public_key("log", KeyKind.ED25519)
    with pytest.raises(Conflict, match="ed25519"):
        vault.sign("log", KeyKind.P256, DIGEST)
    with pytest.raises(Conflict):
        vault.public_key("log", KeyKind.P256)


@pytest.mark.parametrize("name", ["", "../log", "a/b", ".log", "Log", "a" * 81, "a\n", "a b", "a\0", "\u00e9"])
def test_what_is_no_name(vault: KeyVault, name: str) -> None:
    with pytest.raises(InvalidRequest, match="no name of a key"):
        vault.public_key(name, KeyKind.P256)


@pytest.mark.parametrize("name", ["a", "a..", "agent-local_1.Z", "z" * 80])
def test_names(vault: KeyVault, name: str) -> None:
    assert load_der_public_key(vault.public_key(name, KeyKind.P256))


def test_data_keys(vault: KeyVault) -> None:
    made = vault.data_key(CONTEXT)
    assert len(made.plaintext) == 32
    assert made.plaintext not in made.wrapped
    assert repr(made.plaintext) not in repr(made)
    assert vault.unwrap(made.wrapped, dict(reversed(CONTEXT.items()))) == made.plaintext
    another = vault.data_key(CONTEXT)
    assert another.plaintext != made.plaintext
    assert another.wrapped[:13] != made.wrapped[:13]  # a nonce that comes twice gives GCM's key away


def test_data_keys_outlive_the_process(make: Make) -> None:
    made = make("one").data_key(CONTEXT)
    assert make("one").unwrap(made.wrapped, CONTEXT) == made.plaintext


@pytest.mark.parametrize(
    "context",
    [{}, {"tenant": "acme"}, CONTEXT | {"job": "j-2"}, CONTEXT | {"more": ""}, {"tenant": "j-1", "job": "acme"}],
)
def test_a_data_key_opens_for_its_context_alone(vault: KeyVault, context: dict[str, str]) -> None:
    made = vault.data_key(CONTEXT)
    with pytest.raises(PermissionDenied, match="does not open"):
        vault.unwrap(made.wrapped, context)


def test_a_data_key_opens_in_its_vault_alone(make: Make) -> None:
    made = make("one").data_key(CONTEXT)
    with pytest.raises(PermissionDenied):
        make("two").unwrap(made.wrapped, CONTEXT)


def test_an_altered_data_key_does_not_open(vault: KeyVault) -> None:
    wrapped = vault.data_key(CONTEXT).wrapped
    for at in range(len(wrapped)):
        changed = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
        with pytest.raises(PermissionDenied):
            vault.unwrap(changed, CONTEXT)
    for changed in (b"", wrapped[:1], wrapped[:13], wrapped[:-1], wrapped + b"\0"):
        with pytest.raises(PermissionDenied):
            vault.unwrap(changed, CONTEXT)
