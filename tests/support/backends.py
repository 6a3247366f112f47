"""One object per family of adapters, so that a contract test is written once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from hanzo_compute.adapters.local.blobs import FileBlobs
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.queue import SqliteQueue
from hanzo_compute.adapters.local.store import SqliteStore
from hanzo_compute.adapters.memory import (
    ManualClock,
    MemoryBlobs,
    MemoryCommits,
    MemoryDatabase,
    MemoryQueue,
    MemoryStore,
    SeededIds,
)
from hanzo_compute.ports import BlobStore, Commits, JobStore, Queue

MAX_RECEIVES = {"twice": 2}
BASE_URL = "http://127.0.0.1:1"


@dataclass
class Process:
    """What one process of the platform holds."""

    store: JobStore
    queue: Queue
    commits: Commits

    def settle(self) -> None:
        """Wait until all is durable, and so visible to everybody."""
        ticket = self.commits.take()
        if ticket is not None:
            self.commits.wait(ticket)


class Backend(Protocol):
    """A family of adapters."""

    clock: ManualClock
    blobs: BlobStore

    def process(self) -> Process:
        """Another process on the same data."""
        ...

    def upload(self, url: str, data: bytes) -> None:
        """What the client of a presigned URL does by PUT."""
        ...

    def download(self, url: str) -> bytes:
        """… and by GET."""
        ...

    def unique(self, name: str) -> str:
        """A name that no other test uses."""
        ...

    def close(self) -> None: ...


class _Names:
    _count = 0

    def unique(self, name: str) -> str:
        _Names._count += 1
        return f"{name}-{_Names._count}"


class MemoryBackend(_Names):
    def __init__(self) -> None:
        self.clock = ManualClock()
        self._blobs = MemoryBlobs(self.clock)
        self.blobs: BlobStore = self._blobs
        self._database = MemoryDatabase()
        self._closing: list[MemoryCommits] = []

    def process(self) -> Process:
        commits = MemoryCommits(self._database)
        self._closing.append(commits)
        queue = MemoryQueue(self.clock, MAX_RECEIVES, commits)
        return Process(MemoryStore(commits, queue), queue, commits)

    def upload(self, url: str, data: bytes) -> None:
        self._blobs.upload(url, data)

    def download(self, url: str) -> bytes:
        return self._blobs.download(url)

    def close(self) -> None:
        for commits in self._closing:
            commits.close()


class SqliteBackend(_Names):
    """On the home of a writer that runs."""

    def __init__(self, home: Path) -> None:
        self.clock = ManualClock()
        self._home = home
        self._files = FileBlobs(home, self.clock, BASE_URL)
        self.blobs: BlobStore = self._files
        self._closing: list[Callable[[], None]] = []

    def process(self) -> Process:
        client = WriterClient(self._home, wakes=True)
        ids = SeededIds(Random(self.unique("seed")))
        queue = SqliteQueue(client, self.clock, ids, MAX_RECEIVES)
        store = SqliteStore(client, queue)
        self._closing += [store.close, client.close]
        return Process(store, queue, client)

    def upload(self, url: str, data: bytes) -> None:
        tenant, blob, size = self._verify("PUT", url)
        assert size is not None
        upload = self._files.open_upload(tenant, blob, size)
        try:
            for start in range(0, len(data), 1000):
                upload.write(data[start : start + 1000])
            upload.commit()
        finally:
            upload.abort()

    def download(self, url: str) -> bytes:
        tenant, blob, _ = self._verify("GET", url)
        return self._files.get(tenant, blob)

    def _verify(self, method: str, url: str) -> tuple[str, str, int | None]:
        parts = urlsplit(url)
        return self._files.verify(method, parts.path, dict(parse_qsl(parts.query)), self.clock.now_ms())

    def close(self) -> None:
        for close in self._closing:
            close()
