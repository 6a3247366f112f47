"""A small HTTP/1.1 client for many connections in one process: what it costs must not be what is measured."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Connection:
    """One keep-alive connection; opened when it is needed, and again after it has ended."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of an answer. Raises OSError when there is none."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        data = b"" if body is None else json.dumps(body).encode()
        fields = {"Host": "localhost", "Authorization": f"Bearer {self._key}", "Content-Length": str(len(data))}
        if data:
            fields["Content-Type"] = "application/json"
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in {**fields, **(headers or {})}.items())]
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            given = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            content = await reader.readexactly(int(given.get("content-length", 0)))
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            raise ConnectionResetError(str(error)) from error
        if given.get("connection") == "close":
            self.close()
        return int(head[0].split(" ")[1]), given, json.loads(content) if content else None

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
