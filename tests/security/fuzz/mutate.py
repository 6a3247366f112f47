"""Damage to modules that work: flipped bytes, spliced sections, numbers at their edges."""

from __future__ import annotations

import random
from pathlib import Path

from tests.security.fuzz.generate import leb
from tests.support import guests, wasi_script
from tests.support.wasm import wat

SEED_MAX = 40_000
HEAD = b"\0asm\1\0\0\0"
NUMBERS = (0, 1, 2, 127, 128, 1000, 10_001, 50_001, 65_536, 65_537, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**35)


def seeds() -> list[bytes]:
    """Modules to begin with: the guests that are built, those in text, and the one that does anything."""
    found = [wasi_script.module()]
    found += [wat(path.read_text()) for path in sorted((guests.SOURCES / "wat").glob("*.wat"))]
    found += [path.read_bytes() for path in sorted(guests.BUILT.rglob("*.wasm")) if size(path) <= SEED_MAX]
    return found


def size(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def sections(module: bytes) -> list[tuple[int, bytes]] | None:
    """Number and content of each section; None if they cannot be told apart."""
    found = []
    at = len(HEAD)
    while at < len(module):
        number, at = module[at], at + 1
        length = shift = 0
        while at < len(module):
            byte = module[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found.append((number, module[at : at + length]))
        at += length
        if shift > 35 or at > len(module):
            return None
    return found


def joined(parts: list[tuple[int, bytes]]) -> bytes:
    """A module of these sections."""
    return HEAD + b"".join(bytes([number]) + leb(len(content)) + content for number, content in parts)


def _bytes(dice: random.Random, data: bytearray, first: int) -> None:
    at = dice.randrange(first, len(data))
    way = dice.randrange(6)
    if way == 0:
        data[at] ^= 1 << dice.randrange(8)
    elif way == 1:
        data[at] = dice.randrange(256)
    elif way == 2:
        data[at:at] = dice.randbytes(dice.randrange(1, 4))
    elif way == 3:
        del data[at : at + dice.randrange(1, 4)]
    elif way == 4:  # a number at its edge, in place of another
        end = at
        while end < len(data) and data[end] & 0x80 and end - at < 5:
            end += 1
        data[at : end + 1] = leb(dice.choice(NUMBERS))
    else:  # a piece from elsewhere
        start = dice.randrange(len(data))
        piece = data[start : start + dice.randrange(1, 16)]
        data[at : at + len(piece)] = piece


def mutate(dice: random.Random, module: bytes, other: bytes) -> bytes:
    """A damaged copy; sections may come from another module."""
    parts, others = sections(module), sections(other)
    way = dice.random()
    if parts and others and way < 0.25:
        for _ in range(dice.randrange(1, 3)):
            at = dice.randrange(len(parts))
            action = dice.randrange(4)
            if action == 0:
                same = [each for each in others if each[0] == parts[at][0]]
                parts[at] = dice.choice(same or others)
            elif action == 1:
                parts.insert(at, dice.choice(parts + others))
            elif action == 2 and len(parts) > 1:
                del parts[at]
            else:
                to = dice.randrange(len(parts))
                parts[at], parts[to] = parts[to], parts[at]
        return joined(parts)
    if parts and way < 0.75:  # inside one section, whose length stays true
        at = dice.randrange(len(parts))
        number, content = parts[at]
        data = bytearray(content or b"\0")
        for _ in range(dice.choice((1, 1, 1, 2, 4))):
            if data:
                _bytes(dice, data, 0)
        parts[at] = (number, bytes(data))
        return joined(parts)
    if way < 0.8:
        return module[: dice.randrange(len(module))]
    data = bytearray(module)
    for _ in range(dice.choice((1, 1, 2, 8))):
        if len(data) > len(HEAD):
            _bytes(dice, data, len(HEAD))
    return bytes(data)
