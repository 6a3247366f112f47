"""The host calls of an attempt, with their log in its standard error."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from hanzo_compute.ports import LoggingService


class Logged:
    """A service whose lines (what the guest logs, and why it was refused something) are appended to a file."""

    def __init__(self, service: LoggingService, file: Path) -> None:
        self._service = service
        self._file = file
        self._written = len(service.lines)
        self._lock = Lock()

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """The status and the result."""
        answer = self._service.ask(name, args)
        self._write()
        return answer

    def heard(self, stream: int, data: bytes) -> None:
        """What a worker hands on besides files: lines of ``hzc_log`` (stream 0), as ``level NUL text``."""
        if stream == 0:
            level, _, text = data.decode("utf-8", "backslashreplace").partition("\0")
            self._service.log(level, text)
            self._write()

    def _write(self) -> None:
        with self._lock:
            new = self._service.lines[self._written :]
            self._written += len(new)
            text = "".join(f"{level}: {line}\n" for level, line in new)
            # The file is there unless the attempt has been removed; on a full disk the attempt fails by itself.
            if text and self._file.exists():
                with suppress(OSError), self._file.open("ab", buffering=0) as file:
                    file.write(text.encode("utf-8", "backslashreplace"))
