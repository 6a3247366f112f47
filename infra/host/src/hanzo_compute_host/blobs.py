"""Presigned blobs (``PUT`` and ``GET /_blobs/{tenant}/{blob}``): the host serves them as S3 does on AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, runtime_checkable
from urllib.parse import parse_qsl

from hanzo_compute.errors import InvalidRequest, NotFound
from hanzo_compute.ports import Clock
from hanzo_compute_host.events import Answer
from hanzo_compute_host.exchange import Exchange
from hanzo_compute_host.problems import no_route

PREFIX: Final = "/_blobs/"
CHUNK: Final = 64 * 1024
"""Bytes that are read from a file at a time."""


class Upload(Protocol):
    """A blob that is being written; it exists only once it is committed."""

    def write(self, data: bytes) -> None:
        """Add bytes."""
        ...

    def commit(self) -> None:
        """Make it a durable blob. Raises InvalidRequest when size or digest do not fit its id."""
        ...

    def abort(self) -> None:
        """Forget it; after a commit this does nothing."""
        ...


@runtime_checkable
class BlobFiles(Protocol):
    """What the host needs of a blob store that keeps files."""

    def verify(self, method: str, path: str, query: Mapping[str, str], now_ms: int) -> tuple[str, str, int | None]:
        """Tenant, blob and size (of a PUT) of a presigned request. Raises PermissionDenied."""
        ...

    def open_upload(self, tenant: str, blob: str, size: int) -> Upload:
        """Begin to write a blob of ``size`` bytes."""
        ...

    def path(self, tenant: str, blob: str) -> Path:
        """Where the blob's bytes are, if it exists."""
        ...


class BlobGate:
    """Streams blobs between clients and files."""

    def __init__(self, blobs: BlobFiles, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock

    async def serve(self, exchange: Exchange) -> None:
        """Answer one presigned request."""
        if exchange.method not in ("GET", "HEAD", "PUT"):
            raise no_route(exchange.method, exchange.scope["path"], ["GET", "HEAD", "PUT"])
        method = "GET" if exchange.method == "HEAD" else exchange.method
        query = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True))
        tenant, blob, size = self._blobs.verify(method, exchange.raw_path, query, self._clock.now_ms())
        if method == "PUT":
            await self._put(exchange, tenant, blob, size or 0)
        else:
            await self._get(exchange, tenant, blob)

    async def _put(self, exchange: Exchange, tenant: str, blob: str, size: int) -> None:
        announced = exchange.content_length()
        if announced is not None and announced < size:
            raise InvalidRequest(f"this URL takes exactly {size} bytes, the request announces {announced}")
        upload = self._blobs.open_upload(tenant, blob, size)
        try:
            await exchange.read(size, upload.write)
            # It ends with an fsync, which must not hold up everybody else.
            await asyncio.to_thread(upload.commit)
        finally:
            upload.abort()
        await exchange.respond(Answer(200, [(b"etag", f'"{blob}"'.encode())]))

    async def _get(self, exchange: Exchange, tenant: str, blob: str) -> None:
        try:
            file = self._blobs.path(tenant, blob).open("rb")
        except FileNotFoundError:
            raise NotFound(f"there is no blob {blob}") from None
        with file, exchange.holding(CHUNK):
            size = file.seek(0, 2)
            file.seek(0)
            headers = [(b"content-type", b"application/octet-stream"), (b"etag", f'"{blob}"'.encode())]
            await exchange.start(Answer(200, headers), length=size)
            if exchange.method == "HEAD":
                await exchange.write(b"", more=False)
                return
            while part := file.read(CHUNK):
                await exchange.write(part)
            await exchange.write(b"", more=False)
