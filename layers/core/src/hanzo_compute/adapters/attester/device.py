"""Character devices that are asked with ``ioctl``."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hanzo_compute.errors import EvidenceUnavailable

Ioctl = Callable[[int, int, ctypes.Structure], None]
"""File descriptor, request and its argument, which the kernel reads and writes. Raises OSError."""


def ioctl(descriptor: int, request: int, argument: ctypes.Structure) -> None:
    """``ioctl(2)``: by way of the C library, as the argument must have been written also when the call fails.

    Raises:
        OSError: it failed.
    """
    call = ctypes.CDLL(None, use_errno=True).ioctl
    if call(ctypes.c_int(descriptor), ctypes.c_ulong(request), ctypes.byref(argument)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def opened(path: Path, remedy: str) -> Iterator[int]:
    """A device, open for reading and writing.

    Raises:
        EvidenceUnavailable: it is not there, or not for this user.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        known = {errno.EACCES: "run as root, or let this user read and write it", errno.EBUSY: "something else has it"}
        raise EvidenceUnavailable(
            f"{path} cannot be opened: {error.strerror}", hint=known.get(error.errno or 0, remedy)
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
