"""Backups as files, and state folders put in place: whole or not at all, whenever this process is killed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hanzo_compute import wiring
from hanzo_compute.errors import Conflict, InvalidRequest, NotFound, Unavailable
from hanzo_compute_host import running

if TYPE_CHECKING:
    from hanzo_compute.wiring import BackupHead, BackupReport

Say = Callable[[str], None]

MARK: Final = ".hzc-unfinished"
"""In a folder of a command that has not ended: once nobody holds its lock it is rubbish."""
YOUNG_S: Final = 60.0
"""A folder without a lock may be this young because its maker has not come to lock it."""

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Restored:
    """What a restore has put in place, and where the earlier state folder is now."""

    head: BackupHead
    set_aside: Path | None


def default_name() -> str:
    """The name of a backup that is made now."""
    return f"hanzo-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"


def backup(home: Path, target: Path, *, force: bool, say: Say) -> BackupReport:
    """Back up ``home`` as ``target``, which appears under this name once it has been written and verified.

    Raises:
        Conflict: the target exists, and ``force`` is not set.
        InvalidRequest: it lies in the state folder, or its folder is missing.
        NotFound, Unavailable, InternalError: see :func:`hanzo_compute.wiring.backup`.
    """
    folder = target.parent.resolve()
    target = folder / target.name
    if not folder.is_dir():
        raise InvalidRequest(f"{folder} is no folder", hint=f"mkdir -p {folder}")
    if home.resolve() in (folder, *folder.parents):
        raise InvalidRequest(
            f"{target} lies in the state folder: what destroys one destroys both",
            hint="name a file on another disk: hzc backup /path/to/file.tar",
        )
    _free_name(target, force=force)
    with _workspace(folder, ".hzc-backup-") as work:
        report = wiring.backup(home, work / "tar", work, say)
        _free_name(target, force=force)
        (work / "tar").replace(target)
        _sync(folder)
    return report


def _free_name(target: Path, *, force: bool) -> None:
    if target.is_dir():
        raise InvalidRequest(f"{target} is a folder", hint=f"name a file: {target / default_name()}")
    if target.exists() and not force:
        raise Conflict(f"{target} exists", hint="choose another name, or overwrite it with --force")


def restore(home: Path, source: Path, *, force: bool, say: Say) -> Restored:
    """Put the state of a backup in the place of ``home``. Until all of it is verified, nothing there changes.

    Raises:
        Conflict: a platform runs there, or the folder holds something and ``force`` is not set.
        NotFound: there is no such backup.
        InvalidRequest: it is no backup, is damaged, or is of a newer release.
        Unavailable: the disk is full, or the folder cannot be exchanged.
    """
    home = home.resolve()
    try:
        file = source.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no backup {source}", hint="hzc restore FILE") from None
    with file, running.hold(home, "hzc restore"):
        if _holds_something(home) and not force:
            raise Conflict(
                f"{home} holds a platform's state already",
                hint=f"set it aside with --force (as {home}.before-restore-…), or set HZC_HOME to another folder",
            )
        size = os.fstat(file.fileno()).st_size
        free = shutil.disk_usage(home.parent).free
        if free < size:
            raise Unavailable(
                f"{home.parent} has {free >> 20} MiB free, and the backup unpacks to {size >> 20} MiB",
                hint="free some space there",
            )
        with _workspace(home.parent, f"{home.name}.restoring-") as new:
            head = wiring.unpack_backup(file, size, new, say)
            return Restored(head, _put_in_place(home, new))


def _holds_something(home: Path) -> bool:
    return any(path.name != "run" for path in home.iterdir())


def _put_in_place(home: Path, new: Path) -> Path | None:
    """Exchange the two folders; returns the name of the earlier one, unless there was nothing in it."""
    aside = _unused(home.with_name(f"{home.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
    worth = _holds_something(home)
    with running.hold(new, "hzc restore"):
        # From here on this name tells the truth, however this ends: marked it is rubbish, without the mark it is
        # the earlier state.
        new.rename(aside)
        try:
            _exchange(aside, home)
        except OSError as error:
            aside.rename(new)
            raise Unavailable(
                f"{home} cannot be exchanged: {error.strerror}",
                hint="set HZC_HOME to a folder that is no mount point, on a local disk",
            ) from None
        _sync(home.parent)
        (home / MARK).unlink(missing_ok=True)
        if not worth:
            shutil.rmtree(aside)
            return None
    return aside


def _unused(path: Path) -> Path:
    """This path, or the first one with a number behind it that nothing has."""
    found = path
    for number in count(2):
        if not found.exists():
            break
        found = path.with_name(f"{path.name}-{number}")
    return found


def _exchange(one: Path, other: Path) -> None:
    done = _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextmanager
def _workspace(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder of our own below ``parent`` that does not outlive the block; also removes those of the killed."""
    _sweep(parent, prefix)
    try:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        raise InvalidRequest(f"cannot write to {parent}: {error.strerror}", hint="choose another folder") from None
    mark = folder / MARK
    with os.fdopen(os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            if mark.exists():  # else it is in place, and another folder may have its name
                shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path, prefix: str) -> None:
    aside = prefix.replace(".restoring-", ".before-restore-")
    for folder in parent.iterdir():
        if not folder.name.startswith((prefix, aside)):
            continue
        with suppress(OSError):
            mark = folder / MARK
            with mark.open("r+") as lock:
                if time.time() - mark.stat().st_mtime >= YOUNG_S:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has nothing to sync
            raise
    finally:
        os.close(descriptor)
