"""A real writer process on a folder of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.store import SqliteStore
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Put

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
        client = WriterClient(self.home, connect_wait_s=120)
        try:
            client.connect()
        finally:
            client.close()

    @property
    def ended(self) -> int | None:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.poll()

    def stop(self) -> int:
        """End it by SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End it by SIGKILL; returns the exit code."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)

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


class Load(threading.Thread):
    """Writes pairs of records until told to stop; remembers which pairs were called durable."""

    def __init__(self, home: Path, name: str) -> None:
        super().__init__(name=name)
        self.home = home
        self.durable: list[int] = []
        self.tried = 0
        self.ended = threading.Event()

    def run(self) -> None:
        client = WriterClient(self.home)
        store = SqliteStore(client)
        while not self.ended.is_set():
            self.tried += 1
            operations = [Put(Key(f"{self.name}/{half}", f"{self.tried:06}"), {"n": self.tried}) for half in "ab"]
            try:
                store.transact(operations)
                ticket = client.take()
                if ticket is not None:
                    client.wait(ticket)
            except Unavailable:
                continue
            self.durable.append(self.tried)
        store.close()
        client.close()
