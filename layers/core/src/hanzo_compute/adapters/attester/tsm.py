"""Evidence through configfs-tsm, the kernel's interface for SEV-SNP and TDX guests (Linux 6.7 and later).

By the kernel's ``Documentation/ABI/testing/configfs-tsm`` (since 6.16 ``configfs-tsm-report``). One request is one
entry below ``/sys/kernel/config/tsm/report``, of our own, made and removed by each call. The kernel counts every
write to an entry in ``generation``: if it has moved by another number than that of our writes, somebody else wrote
there too (or a write of ours was dropped: the kernel tells no error of ``inblob``), and what was read may answer
their request. Then all is thrown away and asked for again.

Run against a model of the kernel's code only, never on SNP or TDX hardware.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest

ROOT: Final = Path("/sys/kernel/config/tsm/report")
INBLOB: Final = 64
"""Bytes of report data: the most that the kernel takes, and all that both kinds of hardware have."""
OUTBLOB_MAX: Final = 1024 * 1024
"""Bytes of an answer: quotes have some thousand, and Linux gave the file 32 KiB at first."""
PRIVLEVEL_MAX: Final = 3
TRIES: Final = 6
_PAUSE_S: Final = 0.05
_AGAIN: Final = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT})


class Tree(Protocol):
    """The few things that are done to configfs. Each write is one ``write`` call on a newly opened file."""

    def exists(self, path: Path) -> bool:
        """Whether there is a file of this name: which there are depends on the provider and the kernel."""
        ...

    def read(self, path: Path) -> bytes:
        """All of a file."""
        ...

    def write(self, path: Path, data: bytes) -> None:
        """Write ``data`` at once."""
        ...

    def mkdir(self, path: Path) -> None:
        """Make an entry."""
        ...

    def rmdir(self, path: Path) -> None:
        """Remove an entry, with the files in it."""
        ...


class Files:
    """The real one."""

    def exists(self, path: Path) -> bool:
        """Whether there is a file of this name."""
        return path.exists()

    def read(self, path: Path) -> bytes:
        """All of a file. Raises OSError."""
        with path.open("rb", buffering=0) as file:
            chunks: list[bytes] = []
            while chunk := file.read(65536):
                chunks.append(chunk)
        return b"".join(chunks)

    def write(self, path: Path, data: bytes) -> None:
        """Write at once. Raises OSError."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(errno.EIO, f"{written} of {len(data)} bytes were taken", str(path))

    def mkdir(self, path: Path) -> None:
        """Make an entry. Raises OSError."""
        path.mkdir(mode=0o700)

    def rmdir(self, path: Path) -> None:
        """Remove an entry. Raises OSError."""
        path.rmdir()


@dataclass(frozen=True, slots=True)
class Report:
    """What an entry answered."""

    provider: str
    """``sev_guest``, ``tdx_guest``, …"""
    outblob: bytes = field(repr=False)
    """The report or quote."""
    auxblob: bytes = field(default=b"", repr=False)
    """SNP: the host's table of certificates; empty where the host has none."""
    manifestblob: bytes = field(default=b"", repr=False)
    """Of a service module, if one was named."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    inblob: bytes
    """Up to 64 bytes; zeros are added."""
    privlevel: int | None = None
    """Of SNP, the VMPL that the report is to name; None: the most privileged that this guest may ask for."""
    service_provider: str | None = None
    """``svsm``: the report of a service module, with its manifest (Linux 6.10)."""


def collect(
    request: Request,
    root: Path = ROOT,
    *,
    tree: Tree | None = None,
    sleep: Callable[[float], None] = time.sleep,
    tries: int = TRIES,
) -> Report:
    """Ask for a report.

    Raises:
        InvalidRequest: there is too much report data, or no such privilege level.
        EvidenceUnavailable: the kernel does not give one, or others wrote to our entry each time.
    """
    if len(request.inblob) > INBLOB:
        raise InvalidRequest(f"report data has at most {INBLOB} bytes, not {len(request.inblob)}")
    tree = tree or Files()
    why = ""
    for turn in range(tries):
        if turn:
            sleep(_PAUSE_S * 2**turn)
        try:
            report = _attempt(request, root, tree)
        except OSError as error:
            if error.errno not in _AGAIN:
                raise _unavailable(error, root) from error
            why = os.strerror(error.errno or 0)
            continue
        if report is not None:
            return report
        why = "something else wrote to the entry each time"
    raise EvidenceUnavailable(
        f"configfs-tsm gave no report in {tries} tries: {why}", hint="look at what else uses it: ls -l " + str(root)
    )


def provider(root: Path = ROOT, *, tree: Tree | None = None) -> str:
    """Who answers: ``sev_guest``, ``tdx_guest``, … Raises EvidenceUnavailable."""
    tree = tree or Files()
    try:
        entry = _made(root, tree)
        try:
            return _text(tree, entry / "provider")
        finally:
            tree.rmdir(entry)
    except OSError as error:
        raise _unavailable(error, root) from error


def _made(root: Path, tree: Tree) -> Path:
    entry = root / f"hzc-{os.getpid()}-{secrets.token_hex(8)}"
    tree.mkdir(entry)
    return entry


def _attempt(request: Request, root: Path, tree: Tree) -> Report | None:
    """One try in an entry of its own; None if somebody else wrote there. Raises OSError."""
    entry = _made(root, tree)
    try:
        before = int(_text(tree, entry / "generation"))
        writes = _written(request, entry, tree)
        report = Report(
            _text(tree, entry / "provider"),
            tree.read(entry / "outblob"),
            _optional(tree, entry / "auxblob"),
            _optional(tree, entry / "manifestblob") if request.service_provider is not None else b"",
        )
        # Read last: whoever writes between our reads shows in it too.
        after = int(_text(tree, entry / "generation"))
    finally:
        tree.rmdir(entry)
    if after - before != writes:
        return None
    if not report.outblob or len(report.outblob) > OUTBLOB_MAX:
        raise OSError(errno.EIO, f"an answer of {len(report.outblob)} bytes is no report", str(entry / "outblob"))
    return report


def _written(request: Request, entry: Path, tree: Tree) -> int:
    """Write the options and, last, the report data; how many writes that took."""
    writes = 0
    if request.service_provider is not None:
        if not tree.exists(entry / "service_provider"):
            raise EvidenceUnavailable(
                "this kernel asks no service module for reports", hint="Linux 6.10 or later, in a guest with an SVSM"
            )
        tree.write(entry / "service_provider", request.service_provider.encode())
        writes += 1
    if (level := _privlevel(request, entry, tree)) is not None:
        tree.write(entry / "privlevel", str(level).encode())
        writes += 1
    tree.write(entry / "inblob", request.inblob.ljust(INBLOB, b"\0"))
    return writes + 1


def _privlevel(request: Request, entry: Path, tree: Tree) -> int | None:
    """The level to write; None where there are none (TDX)."""
    if not tree.exists(entry / "privlevel"):
        if request.privlevel is not None:
            raise InvalidRequest("this provider has no privilege levels")
        return None
    floor = int(_text(tree, entry / "privlevel_floor"))
    level = floor if request.privlevel is None else request.privlevel
    if not floor <= level <= PRIVLEVEL_MAX:
        raise InvalidRequest(f"privilege levels of this guest are {floor} to {PRIVLEVEL_MAX}, not {level}")
    return level


def _text(tree: Tree, path: Path) -> str:
    return tree.read(path).decode("ascii", "replace").strip()


def _optional(tree: Tree, path: Path) -> bytes:
    """A file that not every provider and kernel has."""
    return tree.read(path) if tree.exists(path) else b""


_WHY: Final = {
    errno.ENOENT: ("configfs-tsm is not there", "mount -t configfs none /sys/kernel/config; modprobe sev-guest, or "
                   "tdx-guest"),
    errno.ENXIO: ("no driver of a confidential guest is loaded", "modprobe sev-guest, or tdx-guest"),
    errno.EACCES: ("this user may not use it", "run as root"),
    errno.EPERM: ("this user may not use it", "run as root"),
    errno.EROFS: ("it is mounted read-only here", "collect outside of the container, or mount configfs writable"),
    errno.EINVAL: ("the kernel refuses the request", "dmesg says more"),
    errno.EIO: ("the firmware or the host's quoting service failed", "dmesg says more; TDX: is the host's QGS up?"),
}  # fmt: skip


def _unavailable(error: OSError, root: Path) -> EvidenceUnavailable:
    why, remedy = _WHY.get(error.errno or 0, (error.strerror or str(error), "dmesg may say more"))
    return EvidenceUnavailable(f"no report from {error.filename or root}: {why} ({error.strerror})", hint=remedy)
