"""A Redis server on a free port of loopback, for what is compared with us."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final

import redis

from tests.support.live import free_port, until

DURABLE: Final = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
"""Every command is synced before it is answered: what the platform does before a 2xx."""
DEFAULT: Final = ()
"""As it comes: a snapshot after an hour, or after five minutes with 100 changes, or a minute with 10,000."""


class RedisServer:
    """One server with its data in ``folder``; can be killed and started again."""

    def __init__(self, folder: Path, settings: tuple[str, ...]) -> None:
        folder.mkdir()
        self._folder = folder
        self._settings = settings
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start it and wait until it answers."""
        binary = shutil.which("redis-server")
        if binary is None:
            raise SystemExit("redis-server is not installed: apt-get install redis-server")
        place = ("--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(self._folder))
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([binary, *place, *self._settings], stdout=log, stderr=log)
        until(self._answers, 20, "Redis answers")

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)
