"""Changes of CBOR and DER that leave the lengths around them right, so that what is inside is read."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import cbor2

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nitro.cbor import decode_first

ODD = 0.01
"""How often an item is written in another form than the shortest: longer, of indefinite length, or twice."""
DEPTH_MAX = 24
_STRANGE: tuple[Any, ...] = (
    *(None, True, 0, -1, 31, 32, 2**32, 2**64 - 1, -(2**64), 2**70, 1.5, float("nan")),
    *(b"", b"\0" * 20, b"\0" * 48, b"x" * 1025, "", "SHA384", "x" * 300, [], {}, [[[[]]]], {0: {0: {0: 0}}}),
    *(cbor2.CBORTag(18, []), cbor2.CBORTag(55799, 0), cbor2.undefined),
)


def cbor(dice: random.Random, data: bytes, other: bytes) -> bytes | None:
    """A copy of CBOR with one item changed, at any depth and within byte strings that are CBOR or DER; or None."""
    tag = b"\xd2" if data[:1] == b"\xd2" else b""
    try:
        item, end = decode_first(data[len(tag) :])
    except Unreadable:
        return None
    if not isinstance(item, list | dict):
        return None
    places = list(_places(item))
    if not places:
        return None
    holder, key = dice.choice(places)
    match dice.randrange(8):
        case 0:
            del holder[key]
        case 1:
            holder[key] = dice.choice(_STRANGE)
        case 2 if isinstance(holder, dict):
            holder[dice.choice((0, -1, 31, 32, "0", "nonce", "x", b"0", None, 2**64 - 1))] = holder.pop(key)
        case 3 if isinstance(holder, list):
            holder.insert(dice.randrange(len(holder) + 1), holder[key])
        case 4:
            from_holder, from_key = dice.choice(places)
            # A copy: nothing may come to contain itself.
            holder[key] = copy.deepcopy(from_holder[from_key])
        case _:
            holder[key] = _inside(dice, holder[key], other)
    return tag + _cbor(dice, item) + data[len(tag) + end :]


def _places(item: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(item, list | dict):
        for key in range(len(item)) if isinstance(item, list) else list(item):
            yield item, key
            yield from _places(item[key])


def _inside(dice: random.Random, value: Any, other: bytes) -> Any:
    from tests.security.evidence_fuzz.mutate import of_bytes

    if isinstance(value, bytes) and value:
        kinds = [cbor, der]
        dice.shuffle(kinds)
        found = next((changed for kind in kinds if (changed := kind(dice, value, other)) is not None), None)
        return of_bytes(dice, value, other)[:65_536] if found is None else found
    if isinstance(value, int):
        return value + dice.choice((-(10**9), -1, 1, 10**9, 2**40))
    if isinstance(value, str):
        return value + dice.choice(("\0", "x", "\U0001f512"))
    return dice.choice(_STRANGE)


def _cbor(dice: random.Random, item: Any) -> bytes:
    """Encoded, by us, since odd forms are what a library does not write."""
    if isinstance(item, bytes | str):
        major, data = (2, item) if isinstance(item, bytes) else (3, item.encode("utf-8", "surrogatepass"))
        if dice.random() < ODD:
            middle = dice.randrange(len(data) + 1)
            parts = (data[:middle], data[middle:])
            return b"".join(((major << 5 | 31).to_bytes(1), *(_head(dice, major, len(p)) + p for p in parts), b"\xff"))
        return _head(dice, major, len(data)) + data
    if not isinstance(item, list | dict):
        return cbor2.dumps(item)
    if isinstance(item, list):
        entries, major = [_cbor(dice, each) for each in item], 4
    else:
        entries = [_cbor(dice, key) + _cbor(dice, value) for key, value in item.items()]
        major = 5
    if entries and dice.random() < ODD:
        entries.insert(dice.randrange(len(entries) + 1), dice.choice(entries))
    body = b"".join(entries)
    if dice.random() < ODD:
        return (major << 5 | 31).to_bytes(1) + body + b"\xff"
    return _head(dice, major, len(entries)) + body


def _head(dice: random.Random, major: int, size: int) -> bytes:
    widths = [each for each in (1, 2, 4, 8) if size < 1 << 8 * each]
    if size < 24 and dice.random() >= ODD:
        return (major << 5 | size).to_bytes(1)
    width = dice.choice(widths) if dice.random() < ODD else widths[0]
    return (major << 5 | 23 + width.bit_length()).to_bytes(1) + size.to_bytes(width, "big")


class _Node:
    """A value of DER: its tag, and its bytes or what it is made of."""

    def __init__(self, tag: int, body: bytes | list[_Node]) -> None:
        self.tag = tag
        self.body = body


def der(dice: random.Random, data: bytes, other: bytes) -> bytes | None:
    """A copy of DER with one value changed; or None if it is none."""
    from tests.security.evidence_fuzz.mutate import of_bytes

    try:
        tree = _parse(data, 0)
    except (ValueError, IndexError):
        return None
    holders = [tree, *(node.body for node in _nodes(tree) if isinstance(node.body, list) and node.body)]
    holder = dice.choice(holders)
    if not holder:
        return None
    at = dice.randrange(len(holder))
    node = holder[at]
    match dice.randrange(7):
        case 0:
            del holder[at]
        case 1:
            holder.insert(at, node)
        case 2:
            node.tag = dice.choice((0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x13, 0x17, 0x18, 0x30, 0x31, 0xA0, 0xA3))
        case 3:
            holder[at] = copy.deepcopy(dice.choice(list(_nodes(tree))))
        case 4:
            node.body = b"" if dice.random() < 0.5 else dice.choice((b"\0", b"\x80", b"\xff" * 9, b"0" * 200))
        case _:
            node.body = of_bytes(dice, _der(dice, node.body), other)[:65_536]
    return _der(dice, tree)


def _nodes(tree: list[_Node]) -> Iterator[_Node]:
    for node in tree:
        yield node
        if isinstance(node.body, list):
            yield from _nodes(node.body)


def _parse(data: bytes, depth: int) -> list[_Node]:
    nodes, at = [], 0
    if depth > DEPTH_MAX:
        raise ValueError("too deep")
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            width = size & 0x7F
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        if at + size > len(data) or tag & 0x1F == 0x1F:
            raise ValueError("no DER")
        body = data[at : at + size]
        at += size
        nodes.append(_Node(tag, _parse(body, depth + 1) if tag & 0x20 else body))
    return nodes


def _der(dice: random.Random, body: bytes | list[_Node]) -> bytes:
    if isinstance(body, bytes):
        return body
    encoded = []
    for node in body:
        inner = _der(dice, node.body)
        size = len(inner)
        width = (size.bit_length() + 7) // 8 or 1
        if dice.random() < ODD:
            width += dice.choice((0, 1, 3))
        short = size < 0x80 and width == 1
        length = bytes((size,)) if short else bytes((0x80 | width,)) + size.to_bytes(width, "big")
        encoded.append(bytes((node.tag,)) + length + inner)
    return b"".join(encoded)
