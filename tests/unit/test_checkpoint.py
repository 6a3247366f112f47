"""Checkpoints: the form of C2SP tlog-checkpoint and signed-note, and everything that is not of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.transparency.checkpoint import (
    NOTE_MAX,
    SIZE_MAX,
    Checkpoint,
    CheckpointError,
    VerifierKey,
    note,
    open_checkpoint,
)

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("example.com/log", PRIVATE.public_key().public_bytes_raw())
ROOT = hashlib.sha256(b"root").digest()


def signed(body: str, key: VerifierKey = KEY, private: Ed25519PrivateKey = PRIVATE) -> str:
    signature = base64.b64encode(key.hash + private.sign(body.encode())).decode()
    return f"{body}\n\N{EM DASH} {key.name} {signature}\n"


def test_the_form_of_a_note() -> None:
    made = note(Checkpoint("example.com/log", 15368405, ROOT), KEY, PRIVATE.sign)
    body = f"example.com/log\n15368405\n{base64.b64encode(ROOT).decode()}\n"
    assert made == signed(body)
    assert open_checkpoint(made, KEY) == Checkpoint("example.com/log", 15368405, ROOT)


def test_the_key_hash_of_the_specification() -> None:
    # signed-note: the first four bytes of SHA-256 over name, newline, the algorithm's byte 0x01, and the key.
    expected = hashlib.sha256(b"example.com/log\n\x01" + KEY.public).digest()[:4]
    assert KEY.hash == expected
    assert str(KEY) == f"example.com/log+{expected.hex()}+{base64.b64encode(bytes([1]) + KEY.public).decode()}"
    assert VerifierKey.parse(str(KEY)) == KEY


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text + "x",
        lambda text: text.replace("example", "other"),
        lambda text: text.replace("+", "-", 1),
        lambda text: text[:-4] + "AAA=",
        lambda text: text.replace(KEY.hash.hex(), KEY.hash.hex().upper()),
        lambda text: text.replace("example.com/log", "two words"),
        lambda text: "+" + text,
    ],
)
def test_what_is_no_key(change: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match=r"key"):
        VerifierKey.parse(change(str(KEY)))


def test_other_signatures_and_extensions_are_left_alone() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
    witness = VerifierKey("witness", other.public_key().public_bytes_raw())
    body = f"example.com/log\n3\n{base64.b64encode(ROOT).decode()}\nextension one\n"
    text = signed(body) + signed(body, witness, other).partition("\n\n")[2]
    for key in (KEY, witness):
        assert open_checkpoint(text, key) == Checkpoint("example.com/log", 3, ROOT, ("extension one",))


def test_every_flipped_byte_is_noticed() -> None:
    text = note(Checkpoint("example.com/log", 12, ROOT), KEY, PRIVATE.sign)
    data = text.encode()
    for at in range(len(data)):
        for bit in (1, 32, 128):
            changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            with pytest.raises(CheckpointError):
                open_checkpoint(changed.decode("utf-8", "surrogateescape"), KEY)


ENCODED = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("log\n1\n", "three lines"),
        ("log\n", "three lines"),
        (f"log\n01\n{ENCODED}\n", "size"),
        (f"log\n-1\n{ENCODED}\n", "size"),
        (f"log\n+1\n{ENCODED}\n", "size"),
        (f"log\n1.0\n{ENCODED}\n", "size"),
        (f"log\n{SIZE_MAX + 1}\n{ENCODED}\n", "size"),
        (f"log\n\u0661\n{ENCODED}\n", "size"),
        (f"log\n1\n{ENCODED[:-1]}\n", "root"),
        (f"log\n1\n{ENCODED[:-2]}B=\n", "root"),
        (f"log\n1\n{base64.b64encode(ROOT[:31]).decode()}\n", "root"),
        (f"log\n1\n {ENCODED}\n", "root"),
        (f"log\n1\n{ENCODED}\r\n", "control"),
    ],
)
def test_what_is_signed_and_no_checkpoint(body: str, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        open_checkpoint(signed(body), KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "\n",
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("\N{EM DASH}", "-"),
        lambda text: text + text.partition("\n\n")[2],
        lambda text: text.replace("example.com/log ", "example.com/lag "),
        lambda text: text.partition("\n\n")[0] + "\n\n",
        lambda text: "x" * NOTE_MAX + text,
        lambda text: text.replace("=\n\n", "==\n\n"),
    ],
)
def test_what_is_no_signed_note(change: Callable[[str], str]) -> None:
    text = note(Checkpoint("example.com/log", 1, ROOT), KEY, PRIVATE.sign)
    changed = change(text)
    assert changed != text
    with pytest.raises(CheckpointError):
        open_checkpoint(changed, KEY)


@given(st.text(max_size=300))
def test_nothing_else_gets_through(text: str) -> None:
    with pytest.raises(CheckpointError):
        open_checkpoint(text, KEY)
    with pytest.raises(CheckpointError):
        open_checkpoint(f"{text}\n\n\N{EM DASH} {text}\n", KEY)
