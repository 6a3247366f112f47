"""Deterministic changes of evidence: of bytes, of lengths, of PEM and of what has a structure."""

from __future__ import annotations

import base64
import binascii
import random
import re
from collections.abc import Callable

from tests.security.evidence_fuzz import structure

SIZE_MAX = 96 * 1024
"""Somewhat more than evidence may have."""
CHANGES_MAX = 6
_EDGES = (0, 1, 2, 0x1F, 0x20, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TOKENS = (
    *(b"\x9f", b"\xbf", b"\x5f", b"\xff", b"\xd2", b"\xc2", b"\xf6", b"\x5b" + b"\xff" * 8),
    *(b"\x30\x80", b"\x04\x84\xff\xff\xff\xff", b"\x02\x00", b"\x05\x00", b"\xa0\x03"),
    *(b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<", b"/>", b'"', b"[" * 64, b"{" * 64, b"\\u0000", b"-1", b"1e999"),
    *(b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"\0", b"\n\n", b"\xed\xa0\x80"),
)
_PEM = re.compile(rb"(-----BEGIN [A-Z ]{1,32}-----\s)([A-Za-z0-9+/=\s]+)(-----END)")


def mutate(dice: random.Random, data: bytes, other: bytes) -> bytes:
    """A changed copy; ``other`` is what may be spliced in. The same dice give the same copy."""
    shaped = dice.random() < 0.6
    changed = _shaped(dice, data, other) if shaped else None
    if changed is None:
        changed = of_bytes(dice, data, other)
    elif dice.random() < 0.2:
        changed = of_bytes(dice, changed, other)
    return changed[:SIZE_MAX]


def of_bytes(dice: random.Random, data: bytes, other: bytes) -> bytes:
    """A copy with one to some changes of bytes, whatever they mean."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3, CHANGES_MAX))):
        dice.choice(_CHANGES)(dice, changed, other)
    return bytes(changed)


def _shaped(dice: random.Random, data: bytes, other: bytes) -> bytes | None:
    kinds: list[Callable[[random.Random, bytes, bytes], bytes | None]] = [structure.cbor, structure.der, _pem]
    dice.shuffle(kinds)
    return next((changed for kind in kinds if (changed := kind(dice, data, other)) is not None), None)


def _pem(dice: random.Random, data: bytes, other: bytes) -> bytes | None:
    blocks = list(_PEM.finditer(data))
    if not blocks:
        return None
    block = dice.choice(blocks)
    try:
        der = base64.b64decode(block[2])
    except binascii.Error:
        return None
    changed = structure.der(dice, der, other) or of_bytes(dice, der, other)
    return b"".join((data[: block.start(2)], base64.encodebytes(changed), data[block.end(2) :]))


def _flip(dice: random.Random, data: bytearray, _: bytes) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _integer(dice: random.Random, data: bytearray, _: bytes) -> None:
    """Where an integer may be, a length say: an edge, the size of what there is, or a little more or less."""
    width = dice.choice((1, 1, 2, 3, 4, 8))
    if len(data) < width:
        return
    at = dice.randrange(len(data) - width + 1)
    order = dice.choice(("big", "little"))
    value = int.from_bytes(data[at : at + width], order)
    value = dice.choice((dice.choice(_EDGES), len(data), len(data) - at, value + dice.randint(-3, 3), ~value))
    data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, order)


def _truncate(dice: random.Random, data: bytearray, _: bytes) -> None:
    del data[dice.randrange(len(data) + 1) :]


def _insert(dice: random.Random, data: bytearray, _: bytes) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.choice((dice.choice(_TOKENS), dice.randbytes(dice.choice((1, 2, 16, 255)))))


def _many(dice: random.Random, data: bytearray, _: bytes) -> None:
    """One thing in great numbers: depth, or just size."""
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.choice(_TOKENS) * dice.choice((8, 100, 2000, 30_000))
    del data[SIZE_MAX:]


def _span(dice: random.Random, size: int) -> tuple[int, int]:
    begin = dice.randrange(size + 1)
    return begin, min(size, begin + dice.choice((1, 2, 4, 16, 48, 256, size)))


def _remove(dice: random.Random, data: bytearray, _: bytes) -> None:
    begin, end = _span(dice, len(data))
    del data[begin:end]


def _repeat(dice: random.Random, data: bytearray, _: bytes) -> None:
    begin, end = _span(dice, len(data))
    data[end:end] = data[begin:end]


def _zero(dice: random.Random, data: bytearray, _: bytes) -> None:
    begin, end = _span(dice, len(data))
    data[begin:end] = bytes((dice.choice((0, 0xFF)),)) * (end - begin)


def _splice(dice: random.Random, data: bytearray, other: bytes) -> None:
    begin, end = _span(dice, len(other))
    at = min(begin, len(data)) if dice.random() < 0.5 else dice.randrange(len(data) + 1)
    data[at : at + dice.choice((0, end - begin))] = other[begin:end]


_CHANGES = (_flip, _flip, _integer, _integer, _truncate, _insert, _many, _remove, _repeat, _zero, _splice)
