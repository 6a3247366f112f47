"""The host's HTTP front on a free port, on the loop of the test, with the test's own handlers and writer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
import types
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from hanzo_compute.adapters.local.system import SystemClock, SystemIds
from hanzo_compute.adapters.memory import MemoryBlobs
from hanzo_compute.errors import Unavailable
from hanzo_compute.ports import CommitNews
from hanzo_compute.ports.sandboxes import Guests
from hanzo_compute_host.front import configure
from hanzo_compute_host.functions import Functions
from hanzo_compute_host.http import App
from hanzo_compute_host.limits import Limits
from hanzo_compute_host.manifest import Manifest, from_json

MODULE = "handlers_of_this_test"


class FakeCommits:
    """A writer that commits when the test says so. Handlers call ``write``."""

    def __init__(self) -> None:
        self._tickets = itertools.count(1)
        self._written = False
        self._open: list[int] = []
        self._news: tuple[list[int], list[int], list[str]] = ([], [], [])
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)

    def write(self) -> None:
        self._written = True

    def commit(self, *woken: str) -> None:
        self._news[0].extend(self._open)
        self._open.clear()
        self._news[2].extend(woken)
        os.eventfd_write(self._bell, 1)

    def fail(self) -> None:
        self._news[1].extend(self._open)
        self._open.clear()
        os.eventfd_write(self._bell, 1)

    def take(self) -> int | None:
        if not self._written:
            return None
        self._written = False
        self._open.append(next(self._tickets))
        return self._open[-1]

    def fileno(self) -> int:
        return self._bell

    def news(self) -> CommitNews:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        found = CommitNews(*self._news)
        self._news = ([], [], [])
        return found

    def wait(self, ticket: int, timeout_s: float = 30.0) -> None:
        if ticket in self._news[1]:
            raise Unavailable("the write was lost")
        self.commit()

    def close(self) -> None:
        os.close(self._bell)


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """HTTP/1.1 by hand: a request a connection, and connections that can be left open or cut."""

    port: int

    async def open(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        fields = {"host": "test", "connection": "close", "content-length": str(len(body)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        return reader, writer

    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        reader, writer = await self.open(method, path, headers, body)
        try:
            async with asyncio.timeout(100):
                return await self.reply(reader)
        finally:
            writer.close()

    @staticmethod
    async def reply(reader: asyncio.StreamReader) -> Reply:
        status, headers = await read_head(reader)
        return Reply(status, headers, await reader.read())


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    return int(lines[0].split(" ")[1]), headers


@dataclass
class Host:
    app: App
    client: Client
    commits: FakeCommits
    functions: Functions
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def start(self, method: str, path: str, **options: Any) -> asyncio.Task[Reply]:
        """A request that runs beside the test."""
        return asyncio.create_task(self.client.request(method, path, **options))


Handler = Callable[[Any, Any], Any]


def manifest_of(handlers: Mapping[str, Handler], routes: list[tuple[str, str, str]] | None = None) -> Manifest:
    """A manifest that routes ``GET`` and ``POST /<name>`` to each handler, besides ``routes``."""
    module = types.ModuleType(MODULE)
    for name, handler in handlers.items():
        setattr(module, name, handler)
    sys.modules[MODULE] = module
    plain = [(method, f"/{name}", name) for name in handlers for method in ("GET", "POST")]
    return from_json(
        {
            "functions": {
                name: {
                    "handler": f"{MODULE}.{name}",
                    "timeout_s": 28,
                    "memory_mib": 512,
                    "while_stopping": name.startswith("lease"),
                    "env": {},
                }
                for name in handlers
            },
            "routes": [
                {"method": method, "path": path, "function": name} for method, path, name in [*plain, *(routes or [])]
            ],
            "queues": [],
            "schedules": [],
        }
    )


@contextlib.asynccontextmanager
async def serving(
    handlers: Mapping[str, Handler],
    routes: list[tuple[str, str, str]] | None = None,
    *,
    blobs: Any = None,
    commits: FakeCommits | None = None,
    limits: Limits | None = None,
    admit: Callable[[str | None], object] = lambda _: None,
    guests: Guests | None = None,
) -> AsyncIterator[Host]:
    """The host, serving ``handlers``."""
    manifest = manifest_of(handlers, routes)
    commits = commits or FakeCommits()
    functions = Functions(manifest)
    app = App(
        manifest,
        functions,
        commits=commits,
        blobs=blobs if blobs is not None else MemoryBlobs(SystemClock()),
        clock=SystemClock(),
        ids=SystemIds(),
        admit=admit,
        limits=limits,
        guests=guests,
    )
    server = uvicorn.Server(configure(app))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(60):
            while not server.started:
                await asyncio.sleep(0.005)
        yield Host(app, Client(listener.getsockname()[1]), commits, functions)
    finally:
        app.stop()
        server.should_exit = True
        await task
        listener.close()
        commits.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until it is true; the bound is for when it never is."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)
