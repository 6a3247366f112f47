"""A strict reader of the CBOR (RFC 8949) that attestation documents are made of.

Integers, byte and text strings, arrays, maps and null, of definite and indefinite length. All else is refused, so that
a document means one thing: tags, floats, other simple values, names given twice, names that are neither text nor
integer, and what follows the item. General decoders turn tags into objects and take keys of any kind, whose hashes
an attacker may choose.
"""

from __future__ import annotations

from typing import Final

from hanzo_compute.attestation.checks import Unreadable

Item = int | bytes | str | None | list["Item"] | dict[int | str, "Item"]

DEPTH_MAX: Final = 8
"""Arrays and maps inside of each other; a document has three."""
_BYTES: Final = 2
_TEXT: Final = 3
_ARRAY: Final = 4
_MAP: Final = 5
_NULL: Final = 0xF6
_BREAK: Final = 0xFF
_INDEFINITE: Final = 31


def decode(data: bytes) -> Item:
    """The one item that ``data`` is.

    Raises:
        Unreadable: it is not well formed, or has what is not expected; the offset is named.
    """
    item, end = decode_first(data)
    if end != len(data):
        raise Unreadable(f"CBOR: {len(data) - end} bytes follow the item at offset {end}")
    return item


def decode_first(data: bytes) -> tuple[Item, int]:
    """The item that ``data`` begins with, and where it ends. Raises Unreadable."""
    reader = _Reader(data)
    return reader.item(0), reader.at


def encode_bytes(data: bytes) -> bytes:
    """A byte string in its shortest form."""
    size = len(data)
    if size < 24:
        return bytes((0x40 | size,)) + data
    width = next(each for each in (1, 2, 4, 8) if size < 1 << 8 * each)
    return bytes((0x57 + width.bit_length(),)) + size.to_bytes(width, "big") + data


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def item(self, depth: int) -> Item:
        """The item that begins here."""
        if depth > DEPTH_MAX:
            raise self._error(f"more than {DEPTH_MAX} arrays and maps inside of each other")
        if self._skip(_NULL):
            return None
        major, size = self._head()
        if major <= 1:
            if size is None:
                raise self._error("an integer of indefinite length")
            return -1 - size if major else size
        if major in (_BYTES, _TEXT):
            return self._string(major, size)
        if major == _ARRAY:
            return self._array(size, depth)
        if major == _MAP:
            return self._map(size, depth)
        raise self._error("a tag" if major == 6 else "a float, or a simple value other than null")

    def _head(self) -> tuple[int, int | None]:
        """Major type, and the value or size that goes with it: None if indefinite."""
        first = self._take(1)[0]
        major, info = first >> 5, first & 0x1F
        if info < 24:
            return major, info
        if info <= 27:
            return major, int.from_bytes(self._take(1 << (info - 24)), "big")
        if info == _INDEFINITE:
            return major, None
        raise self._error("a reserved length")

    def _string(self, major: int, size: int | None) -> bytes | str:
        data = b"".join(self._chunks(major)) if size is None else self._take(size)
        if major == _BYTES:
            return data
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error("text that is not UTF-8") from None

    def _chunks(self, major: int) -> list[bytes]:
        chunks = []
        while not self._skip(_BREAK):
            kind, size = self._head()
            if kind != major or size is None:
                raise self._error("a string of indefinite length with a part that is no such string")
            chunks.append(self._take(size))
        return chunks

    def _array(self, size: int | None, depth: int) -> list[Item]:
        items: list[Item] = []
        while not self._ended(size, len(items)):
            items.append(self.item(depth + 1))
        return items

    def _map(self, size: int | None, depth: int) -> dict[int | str, Item]:
        entries: dict[int | str, Item] = {}
        while not self._ended(size, len(entries)):
            key = self.item(depth + 1)
            if not isinstance(key, int | str):
                raise self._error("a map with a key that is neither text nor integer")
            if key in entries:
                raise self._error(f"a map with the key {key!r} twice")
            entries[key] = self.item(depth + 1)
        return entries

    def _ended(self, size: int | None, count: int) -> bool:
        return self._skip(_BREAK) if size is None else count >= size

    def _skip(self, byte: int) -> bool:
        """Whether this byte is next; it is passed over then."""
        found = self.at < len(self._data) and self._data[self.at] == byte
        self.at += found
        return found

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._data):
            raise self._error(f"it ends where {size} more bytes should be")
        data = self._data[self.at : end]
        self.at = end
        return data

    def _error(self, what: str) -> Unreadable:
        return Unreadable(f"CBOR at offset {self.at}: {what[:200]}")
