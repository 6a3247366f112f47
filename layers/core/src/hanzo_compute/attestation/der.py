"""A small strict reader of DER (ITU-T X.690), for what the library will not read: certificates with serial number 0.

Only definite lengths in their shortest form and low tag numbers are read; whatever else is there is an error.
Depth is the caller's: nothing here recurses.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
IA5_STRING: Final = 0x16
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

_TEXT: Final = {UTF8_STRING: "utf-8", PRINTABLE_STRING: "ascii", IA5_STRING: "ascii"}
_LENGTH_MAX: Final = 4
_YEAR: Final = {UTC_TIME: 2, GENERALIZED_TIME: 4}


class DerError(ValueError):
    """The bytes are not DER, or not of the type that belongs there."""


class Value(NamedTuple):
    """One value: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    encoded: bytes

    def expect(self, tag: int) -> Value:
        """Itself, if it has that tag. Raises DerError."""
        if self.tag != tag:
            raise DerError(f"tag {self.tag:#04x} where {tag:#04x} belongs")
        return self

    def children(self, tag: int = SEQUENCE) -> list[Value]:
        """What a SEQUENCE, or another constructed value of that tag, consists of. Raises DerError."""
        content = self.expect(tag).content
        found, at, end = [], 0, len(content)
        while at < end:
            value = _read(content, at)
            found.append(value)
            at += len(value.encoded)
        return found

    def integer(self) -> int:
        """A non-negative INTEGER. Raises DerError for negative ones and longer forms than needed."""
        content = self.expect(INTEGER).content
        if not content or content[0] & 0x80:
            raise DerError("an INTEGER that is empty or negative")
        if len(content) > 1 and content[0] == 0 and not content[1] & 0x80:
            raise DerError("an INTEGER that is longer than it needs to be")
        return int.from_bytes(content, "big")

    def oid(self) -> str:
        """An OBJECT IDENTIFIER in dotted form. Raises DerError."""
        return _oid(self.expect(OID).content)

    def octets(self) -> bytes:
        """The bytes of an OCTET STRING. Raises DerError."""
        return self.expect(OCTET_STRING).content

    def bits(self) -> bytes:
        """The bytes of a BIT STRING of whole bytes. Raises DerError."""
        content = self.expect(BIT_STRING).content
        if not content or content[0]:
            raise DerError("a BIT STRING that is not of whole bytes")
        return content[1:]

    def boolean(self) -> bool:
        """A BOOLEAN. Raises DerError for other encodings than 00 and FF."""
        content = self.expect(BOOLEAN).content
        if content not in (b"\x00", b"\xff"):
            raise DerError("a BOOLEAN that is neither 00 nor FF")
        return content == b"\xff"

    def text(self) -> str:
        """An UTF8String, PrintableString or IA5String. Raises DerError."""
        if (encoding := _TEXT.get(self.tag)) is None:
            raise DerError(f"tag {self.tag:#04x} where a string belongs")
        try:
            return self.content.decode(encoding)
        except UnicodeDecodeError as error:
            raise DerError(f"a string that is not {encoding}") from error

    def time(self) -> datetime:
        """A UTCTime or GeneralizedTime in the form that RFC 5280 (4.1.2.5) asks for. Raises DerError."""
        digits, text = _YEAR.get(self.tag), self.content.decode("latin-1")
        numbers = text[:-1]
        # int() is more generous than the form: it takes spaces, signs and underscores.
        if digits is None or len(text) != digits + 11 or not numbers.isascii() or not numbers.isdigit():
            raise DerError("a time that is not of its form")
        if text[-1] != "Z":
            raise DerError("a time that is not in UTC")
        year, rest = int(numbers[:digits]), numbers[digits:]
        if digits == 2:
            year += 1900 if year >= 50 else 2000
        month, day, hour, minute, second = (int(rest[at : at + 2]) for at in range(0, 10, 2))
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError as error:
            raise DerError("a time that does not exist") from error


def read(data: bytes) -> Value:
    """The one value that ``data`` is, with nothing after it. Raises DerError."""
    value = _read(data, 0)
    if len(value.encoded) != len(data):
        raise DerError(f"{len(data) - len(value.encoded)} bytes follow the value")
    return value


def _read(data: bytes, at: int) -> Value:
    if len(data) - at < 2:
        raise DerError("it is cut off")
    tag, length, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DerError("a tag number above 30")
    if length & 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= _LENGTH_MAX:
            raise DerError("a length that is indefinite or too large")
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
        if start > len(data) or length < 0x80 or length >> (8 * (octets - 1)) == 0:
            raise DerError("a length that is cut off or longer than it needs to be")
    if (end := start + length) > len(data):
        raise DerError("it is cut off")
    # As Value(...) makes it, without a call in between: a certificate has a hundred.
    return tuple.__new__(Value, (tag, data[start:end], data[at:end]))


@lru_cache(maxsize=256)
def _oid(content: bytes) -> str:
    """Remembered, as certificates of one kind repeat the same few."""
    if not content or content[-1] & 0x80:
        raise DerError("an OBJECT IDENTIFIER that is cut off")
    parts, part = [], 0
    for byte in content:
        if byte < 0x80:
            parts.append(part << 7 | byte)
            part = 0
        elif byte == 0x80 and not part:
            raise DerError("an OBJECT IDENTIFIER that is longer than it needs to be")
        else:
            part = part << 7 | byte & 0x7F
    first = min(parts[0] // 40, 2)
    return ".".join(map(str, (first, parts[0] - 40 * first, *parts[1:])))
