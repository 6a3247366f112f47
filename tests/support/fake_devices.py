"""Character devices at the ioctl layer: they read and write the caller's memory at the addresses that it gives.

Layouts are written out here once more, by the kernel's headers: the product's own structures are what is tested.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cbor2

PAGE = 4096
REPORT_DATA_AT = 0x50


def user_read(address: int, size: int) -> bytes:
    """copy_from_user"""
    return ctypes.string_at(address, size)


def user_write(address: int, data: bytes) -> None:
    """copy_to_user"""
    ctypes.memmove(address, data, len(data))


def failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class SevGuest:
    """drivers/virt/coco/sev-guest (Linux 6.1 to 6.6): GET_REPORT and GET_EXT_REPORT."""

    make: Callable[[bytes, int], bytes]
    """Firmware: a report for 64 bytes of report data and a VMPL."""
    certificates: bytes | None = b""
    """The host's table; None: a host that does not know the extended request."""
    busy: int = 0
    """So many next requests are throttled by the host."""
    status: int = 0
    """Of the firmware's message."""
    key_is_gone: bool = False
    calls: list[str] = field(default_factory=list)

    def __call__(self, descriptor: int, request: int, argument: ctypes.Structure) -> None:
        assert descriptor >= 0
        at = ctypes.addressof(argument)
        assert ctypes.sizeof(argument) == 32
        version, data, response, _ = struct.unpack("<B7xQQQ", user_read(at, 32))
        if version != 1 or not data or not response:
            raise failed(errno.EINVAL)
        if self.key_is_gone:
            raise failed(errno.ENOTTY)
        extended = {0xC0205300: False, 0xC0205302: True}.get(request)
        if extended is None:
            raise failed(errno.ENOTTY)
        self.calls.append("ext" if extended else "report")
        if self.busy:
            self.busy -= 1
            user_write(at + 24, struct.pack("<II", 0, 2))
            raise failed(errno.EAGAIN)
        self._certify(at, data) if extended else None
        user_data, vmpl, reserved = struct.unpack("<64sI28s", user_read(data, 96))
        assert reserved == bytes(28)
        report = self.make(user_data, vmpl) if not self.status else b""
        message = struct.pack("<II24x", self.status, len(report)) + report
        user_write(response, message.ljust(4000, b"\0"))
        user_write(at + 24, bytes(8))

    def _certify(self, at: int, data: int) -> None:
        if self.certificates is None:
            user_write(at + 24, struct.pack("<II", 0xFF, 1 << 31))
            raise failed(errno.EIO)
        address, size = struct.unpack("<QI", user_read(data + 96, 12))
        if size and address:
            if size > 0x4000 or size % PAGE:
                raise failed(errno.EINVAL)
        else:
            size = 0
        needed = -(-len(self.certificates) // PAGE) * PAGE
        if needed > size:
            user_write(data + 104, struct.pack("<I", needed))
            user_write(at + 24, struct.pack("<II", 0, 1))
            raise failed(errno.EIO)
        if needed:
            user_write(address, self.certificates.ljust(needed, b"\0"))


@dataclass
class Nsm:
    """drivers/misc/nsm.c: CBOR to and fro. ``answer`` is the security module."""

    answer: Callable[[Any], Any]
    number: int = 0
    """The errno that the next call fails with."""
    raw: bytes | None = None
    """Sent instead of an answer."""
    length: int | None = None
    """The length that is said of it, instead of its own."""

    def __call__(self, descriptor: int, request: int, argument: ctypes.Structure) -> None:
        assert descriptor >= 0
        assert (request, ctypes.sizeof(argument)) == (0xC0200A00, 32)
        at = ctypes.addressof(argument)
        source, size, target, room = struct.unpack("<QQQQ", user_read(at, 32))
        if self.number:
            raise failed(self.number)
        if size > 0x1000 or room > 0x3000:
            raise failed(errno.EMSGSIZE)
        data = cbor2.dumps(self.answer(cbor2.loads(user_read(source, size)))) if self.raw is None else self.raw
        user_write(target, data[:room])
        user_write(at + 24, struct.pack("<Q", len(data) if self.length is None else self.length))
