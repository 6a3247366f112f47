"""HTTP by hand on a plain socket: what no client library would send; and what a process uses."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Response:
    """What came back; status 0 when the connection ended without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self) -> dict[str, Any]:
        """The problem document that every refusal is."""
        assert self.headers["content-type"] == "application/problem+json", self
        found: dict[str, Any] = self.json()
        assert found["status"] == self.status
        assert found["detail"]
        assert found["code"]
        return found


NOTHING = Response(0, {}, b"")


class Raw:
    """One connection."""

    def __init__(self, port: int, *, timeout_s: float = 15.0, buffer: int | None = None) -> None:
        self.sock = socket.socket()
        if buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.settimeout(timeout_s)
        self.sock.connect(("127.0.0.1", port))
        self._rest = b""

    def send(self, data: bytes) -> Raw:
        """Send bytes; that the other side has closed meanwhile is no error: its answer says why."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)
        return self

    def read(self, *, bodiless: bool = False) -> Response:
        """The next response (``bodiless``: to a HEAD), or NOTHING when the connection ended."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return NOTHING
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        status = int(lines[0].split(" ")[1])
        if bodiless or "content-length" not in headers:
            return Response(status, headers, b"")
        size = int(headers["content-length"])
        while len(self._rest) < size and self._more():
            pass
        body, self._rest = self._rest[:size], self._rest[size:]
        return Response(status, headers, body)

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self._rest += data
        return bool(data)

    def ended(self) -> bool:
        """Whether the other side has closed; waits for that, and expects no more bytes."""
        return not self._rest and not self._more()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def head(method: str, path: str, headers: Iterable[tuple[str, str]] = (), *, key: str = "", host: str = "x") -> bytes:
    """The head of a request."""
    fields = [("Host", host), *([("Authorization", f"Bearer {key}")] if key else []), *headers]
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(path: str, body: bytes, key: str, *headers: tuple[str, str]) -> bytes:
    """A whole POST with a JSON body."""
    given = {name.lower() for name, _ in headers}
    more = [("Content-Length", str(len(body)))]
    if "content-type" not in given:
        more.append(("Content-Type", "application/json"))
    return head("POST", path, [*more, *headers], key=key) + body


def ask(port: int, data: bytes, *, timeout_s: float = 15.0) -> Response:
    """Send bytes on a connection of their own; the first answer."""
    with Raw(port, timeout_s=timeout_s) as raw:
        return raw.send(data).read(bodiless=data.startswith(b"HEAD "))


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no memory")


def open_files(pid: int) -> int:
    """Open descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def allow_files(wanted: int) -> None:
    """Let this process open so many files. A machine that does not is too small for the test, which says so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"the test needs {wanted} open files: ulimit -Hn is {hard}"
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
