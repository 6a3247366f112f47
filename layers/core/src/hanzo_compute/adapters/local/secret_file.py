"""Secrets in files of their own, which only their owner can read: made once, whoever comes first."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hanzo_compute.adapters.local.folders import make_folders, sync
from hanzo_compute.errors import InternalError, Unavailable
from hanzo_compute.model.stored import UNFINISHED


def made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """What a secret file holds, which is made with ``make()`` by whichever process comes first, durably.

    Raises:
        InternalError: others could read or change it.
        Unavailable: it cannot be read or written.
    """
    try:
        with suppress(FileNotFoundError):
            found = _read(path)
            sync(path.parent)  # whoever made it may have got no further than its name
            return found
        make_folders(path.parent)
        with _alone(path.parent):
            if not path.exists():
                for left in path.parent.iterdir():  # by who was killed here: nobody else is at it now
                    if UNFINISHED.fullmatch(left.name) and left.name.count(".") == 1:
                        left.unlink(missing_ok=True)
                _write(path, make())
            sync(path.parent)
        return _read(path)
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read or made: {error.strerror or error}", hint="is the disk full, or read-only?"
        ) from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time makes secrets in a folder."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (os.geteuid(), 0):
            raise InternalError(
                f"{path} belongs to another user", hint=f"if nobody has had it: chown {os.geteuid()} {path}"
            )
        if status.st_mode & 0o077:
            raise InternalError(
                f"{path} can be read or written by others", hint=f"if nobody has had it: chmod 600 {path}"
            )
        return file.read()
