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
    sign_line,
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


def test_a_note_of_the_go_checksum_database() -> None:
    key = VerifierKey.parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    root = "8lHrQPRYe4KT4WQ9/Qk8/taKnD6IRHbFgfN7vQE2Y54="
    signature = "Az3gri/oVBN1jAhNZ/iS+W31psFAWRT20/GyrhpU6taFwulQGetBkH5S7wpGXdS935jiIGiUUAXBVHzT/P6fYhqAmAk="
    text = f"go.sum database tree\n63096908\n{root}\n\n\N{EM DASH} sum.golang.org {signature}\n"
    assert open_checkpoint(text, key) == Checkpoint("go.sum database tree", 63096908, base64.b64decode(root))
    with pytest.raises(CheckpointError, match="does not hold"):
        open_checkpoint(text.replace("63096908", "63096909"), key)


def test_the_note_of_the_go_package_is_signed_and_no_checkpoint() -> None:
    key = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = (
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "\N{EM DASH} PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    with pytest.raises(CheckpointError, match="three lines"):
        open_checkpoint(text, key)
    with pytest.raises(CheckpointError, match="does not hold"):
        open_checkpoint(text.replace("think", "thinK"), key)


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40),
    st.integers(0, SIZE_MAX),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40), max_size=3),
)
def test_what_is_signed_comes_back(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    made = Checkpoint(origin, size, root, tuple(extensions))
    assert open_checkpoint(note(made, KEY, PRIVATE.sign), KEY) == made


@pytest.mark.parametrize(
    "made",
    [
        Checkpoint("", 1, ROOT),
        Checkpoint("two\nlines", 1, ROOT),
        Checkpoint("tab\t", 1, ROOT),
        Checkpoint("\ud800", 1, ROOT),
        Checkpoint("log", -1, ROOT),
        Checkpoint("log", SIZE_MAX + 1, ROOT),
        Checkpoint("log", 1, ROOT[:31]),
        Checkpoint("log", 1, ROOT + b"\0"),
        Checkpoint("log", 1, ROOT, ("",)),
        Checkpoint("log", 1, ROOT, ("one\ntwo",)),
    ],
)
def test_what_would_not_come_back_is_not_signed(made: Checkpoint) -> None:
    asked: list[bytes] = []

    def sign(message: bytes) -> bytes:
        asked.append(message)
        return PRIVATE.sign(message)

    with pytest.raises(CheckpointError):
        note(made, KEY, sign)
    assert asked == []


def test_a_signature_of_another_length_is_not_written() -> None:
    for length in (0, 63, 65):
        with pytest.raises(ValueError, match="64 bytes"):
            sign_line(Checkpoint("log", 1, ROOT), KEY, lambda _, length=length: bytes(length))  # type: ignore[misc]


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


def test_keys_have_a_name_and_32_bytes() -> None:
    for name, public in (("", bytes(32)), ("a b", bytes(32)), ("a+b", bytes(32)), ("a\n", bytes(32)), ("a", bytes(31))):
        with pytest.raises(ValueError, match="key"):
            VerifierKey(name, public)


def test_every_part_of_a_key_counts() -> None:
    text = str(KEY)
    for at in range(len(text)):
        for changed in (text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :], text[:at] + text[at + 1 :], text[:at]):
            with pytest.raises(ValueError, match="key"):
                VerifierKey.parse(changed)


def test_other_signatures_and_extensions_are_left_alone() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
    witness = VerifierKey("witness", other.public_key().public_bytes_raw())
    body = f"example.com/log\n3\n{base64.b64encode(ROOT).decode()}\nextension one\n"
    point = Checkpoint("example.com/log", 3, ROOT, ("extension one",))
    text = note(point, KEY, PRIVATE.sign) + sign_line(point, witness, other.sign)
    assert text == signed(body) + signed(body, witness, other).partition("\n\n")[2]
    for key in (KEY, witness):
        assert open_checkpoint(text, key) == point
    stranger = VerifierKey("stranger", KEY.public)
    with pytest.raises(CheckpointError, match="0 signatures"):
        open_checkpoint(text, stranger)


def test_a_note_has_room_for_sixteen_long_signatures() -> None:
    text = signed(f"log\n3\n{ENCODED}\n")
    for number in range(16):
        text += f"\N{EM DASH} witness-{number} {base64.b64encode(bytes(5000)).decode()}\n"
    assert open_checkpoint(text, KEY).size == 3
    with pytest.raises(CheckpointError, match="too long"):
        open_checkpoint(text + "x" * NOTE_MAX, KEY)


def test_one_name_may_have_several_keys() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
    newer = VerifierKey(KEY.name, other.public_key().public_bytes_raw())
    point = Checkpoint(KEY.name, 3, ROOT)
    text = note(point, KEY, PRIVATE.sign) + sign_line(point, newer, other.sign)
    assert open_checkpoint(text, KEY) == open_checkpoint(text, newer) == point
    swapped = note(point, KEY, other.sign) + sign_line(point, newer, PRIVATE.sign)
    for key in (KEY, newer):
        with pytest.raises(CheckpointError, match="does not hold"):
            open_checkpoint(swapped, key)


def test_every_flipped_byte_is_noticed() -> None:
    text = note(Checkpoint("example.com/log", 12, ROOT), KEY, PRIVATE.sign)
    data = text.encode()
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
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
        (f"log\n1\n{ENCODED}\nextension\x00\n", "control"),
        (f"\n1\n{ENCODED}\n", "."),
        (f"log\n\n1\n{ENCODED}\n", "."),
        (f"log\n1\n{ENCODED}\n\nextension\n", "."),
    ],
)
def test_what_is_signed_and_no_checkpoint(body: str, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        open_checkpoint(signed(body), KEY)


def test_what_has_no_utf_8_is_no_checkpoint() -> None:
    body = f"log\n1\n{ENCODED}\n\ud800\n"
    signature = base64.b64encode(KEY.hash + PRIVATE.sign(body.encode("utf-8", "surrogatepass"))).decode()
    with pytest.raises(CheckpointError, match="UTF-8"):
        open_checkpoint(f"{body}\n\N{EM DASH} {KEY.name} {signature}\n", KEY)


@pytest.mark.parametrize(
    "line",
    [
        "\N{EM DASH} a+b AAAAAAA=",
        "\N{EM DASH} a\u00a0b AAAAAAA=",
        "\N{EM DASH} a\u2003 AAAAAAA=",
        "\N{EM DASH}  AAAAAAA=",
        "\N{EM DASH} a  AAAAAAA=",
        "\N{EM DASH} a AAAAAAA= ",
        "\N{EM DASH} a AAAAAAB=",
        "\N{EM DASH} a AAAA-_A=",
        "\N{EM DASH} a AAAAAA==",
        "\N{EM DASH} a",
        "\N{EN DASH} a AAAAAAA=",
        "a AAAAAAA=",
        "",
    ],
)
def test_a_line_of_another_form_is_refused_whosever_it_is(line: str) -> None:
    text = signed(f"log\n1\n{ENCODED}\n")
    assert open_checkpoint(text + "\N{EM DASH} a AAAAAAA=\n", KEY).size == 1
    with pytest.raises(CheckpointError, match="line of a signature"):
        open_checkpoint(f"{text}{line}\n", KEY)


def test_a_signature_has_64_bytes() -> None:
    body = f"log\n1\n{ENCODED}\n"
    signature = PRIVATE.sign(body.encode())
    for wrong in (signature[:-1], signature + b"\0", signature[:1]):
        encoded = base64.b64encode(KEY.hash + wrong).decode()
        with pytest.raises(CheckpointError, match="does not hold"):
            open_checkpoint(f"{body}\n\N{EM DASH} {KEY.name} {encoded}\n", KEY)


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


PLACES = st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))


@given(
    PLACES,
    st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["\n", "\n\n", " ", "+", "=", "0", "\N{EM DASH} "])),
)
def test_a_note_that_was_cut_and_pasted(places: tuple[int, int, int], inserted: str | None) -> None:
    text = note(Checkpoint("example.com/log", 12, ROOT), KEY, PRIVATE.sign)
    start, end, at = (place % (len(text) + 1) for place in places)
    piece = text[min(start, end) : max(start, end)] if inserted is None else inserted
    for changed in (text[:at] + piece + text[at:], text[: min(start, end)] + piece + text[max(start, end) :]):
        if changed != text:
            with pytest.raises(CheckpointError):
                open_checkpoint(changed, KEY)


@given(st.text(max_size=300))
def test_nothing_else_gets_through(text: str) -> None:
    with pytest.raises(CheckpointError):
        open_checkpoint(text, KEY)
    with pytest.raises(CheckpointError):
        open_checkpoint(f"{text}\n\n\N{EM DASH} {text}\n", KEY)
