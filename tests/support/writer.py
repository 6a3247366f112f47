"""A real writer process on a folder of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from hanzo_compute.adapters.local.client import WriterClient

COMMAND = (sys.executable, "-m", "hanzo_compute.adapters.local.writer", "--home")


class WriterProcess:
    """Starts at once; answers when the constructor returns."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with (self.home / "writer.log").open("ab") as log:
            self._process = subprocess.Popen([*COMMAND, str(self.home)], stderr=log)
        client = WriterClient(self.home, connect_wait_s=20)
        try:
            client.connect()
        finally:
            client.close()

    def stop(self) -> int:
        """End it by SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End it by SIGKILL; returns the exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(20)

    @property
    def log(self) -> str:
        return (self.home / "writer.log").read_text()

    def __enter__(self) -> WriterProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
