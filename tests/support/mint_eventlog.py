"""Event logs of a firmware of our own."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

from hanzo_compute.attestation import eventlog
from hanzo_compute.attestation.eventlog import EV_NO_ACTION, SHA1, SHA256, SHA384

NAMES = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384", eventlog.SHA512: "sha512"}


def header(algorithms: Sequence[int], *, index: int = 0, vendor: bytes = b"") -> bytes:
    """The first event of a crypto-agile log."""
    sizes = [(each, hashlib.new(NAMES[each]).digest_size) for each in algorithms]
    data = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 106, 2, len(sizes))
    data += b"".join(struct.pack("<HH", *each) for each in sizes) + bytes([len(vendor)]) + vendor
    return legacy(index, EV_NO_ACTION, bytes(20), data)


def legacy(index: int, kind: int, digest: bytes, data: bytes) -> bytes:
    """An event of the old form."""
    return struct.pack("<II20sI", index, kind, digest, len(data)) + data


def event(index: int, kind: int, data: bytes, algorithms: Iterable[int] = (SHA384,)) -> bytes:
    """An event whose digests are of its data."""
    digests = [(each, hashlib.new(NAMES[each], data).digest()) for each in algorithms]
    parts = [struct.pack("<III", index, kind, len(digests))]
    parts += [struct.pack("<H", each) + digest for each, digest in digests]
    return b"".join([*parts, struct.pack("<I", len(data)), data])


def extended(values: Iterable[bytes], algorithm: int = SHA384) -> bytes:
    """What a register holds that was extended with the digests of these."""
    name = NAMES[algorithm]
    register = bytes(hashlib.new(name).digest_size)
    for value in values:
        register = hashlib.new(name, register + hashlib.new(name, value).digest()).digest()
    return register
