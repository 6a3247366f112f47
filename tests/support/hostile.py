"""A hostile machine for real processes: small disks, system calls that fail, clocks that are wrong."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.support.engines import need_root, need_strace


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own with so much room, mounted at ``folder``."""
    need_root()
    folder.mkdir()
    size = f"size={mebibytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "hzc-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, mode: str) -> None:
    """Make a mounted file system read-only (``ro``) or writable (``rw``)."""
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


class Failing:
    """While it is entered, system calls of a process fail as strace's ``inject`` says; what it saw is kept."""

    def __init__(self, pid: int, log: Path, *inject: str, trace: str, path: Path | None = None) -> None:
        need_strace()
        options = [word for each in inject for word in ("-e", f"inject={each}")]
        only = [] if path is None else ["-P", str(path)]
        command = ["strace", "-f", "-y", "-o", str(log), "-p", str(pid), "-e", f"trace={trace}", *only, *options]
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Failing:
        self._log.touch()
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if b"attached" not in line:
            raise AssertionError(f"strace: {line.decode()}{self._process.communicate()[1].decode()}")
        return self

    @property
    def seen(self) -> list[str]:
        """The calls so far, one a line."""
        return self._log.read_text().splitlines()

    @property
    def injected(self) -> int:
        """How many calls were made to fail."""
        return sum("(INJECTED)" in line for line in self.seen)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=20)
