"""The other side of a function's HTTP requests, without a network: names, addresses and what answers there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hanzo_compute.adapters.egress import AddressPolicy, HttpEgress
from hanzo_compute.ports import EgressRequest, EgressResponse

PUBLIC = "93.184.216.34"
Serve = Callable[[socket.socket], None]


def answering(data: bytes) -> Serve:
    """Reads a whole request, answers with these bytes, and hangs up."""

    def serve(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(data)

    return serve


def read_request(sock: socket.socket) -> bytes:
    """A request up to the end of its body."""
    found = b""
    while b"\r\n\r\n" not in found:
        piece = sock.recv(65536)
        if not piece:
            return found
        found += piece
    head, _, body = found.partition(b"\r\n\r\n")
    size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < size:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


@dataclass
class FarSide:
    """Resolves and connects as it is told, and remembers what it was asked for."""

    names: dict[str, Sequence[str] | Exception] = field(default_factory=dict)
    serve: dict[str, Serve] = field(default_factory=dict)
    """What answers, by address."""
    requests: list[bytes] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    connected: list[tuple[str, int]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def egress(self, policy: AddressPolicy | None = None) -> HttpEgress:
        """The way out that leads here."""
        return HttpEgress(policy, resolve=self.resolve, connect=self.connect)

    def resolve(self, host: str, _port: int, _timeout_s: float) -> Sequence[str]:
        self.resolved.append(host)
        found = self.names.get(host, [PUBLIC])
        if isinstance(found, Exception):
            raise found
        return found

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.connected.append((address, port))
        serve = self.serve.get(address)
        if serve is None:
            raise ConnectionRefusedError(111, "Connection refused")
        near, far = socket.socketpair()
        near.settimeout(timeout_s)

        def work() -> None:
            with far, suppress(OSError):
                serve(_Recorded(far, self.requests))  # type: ignore[arg-type]

        thread = threading.Thread(target=work)
        thread.start()
        self.threads.append(thread)
        return near

    def close(self) -> None:
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


class _Recorded:
    """A socket of which what was received is kept."""

    def __init__(self, sock: socket.socket, requests: list[bytes]) -> None:
        self._sock = sock
        self._requests = requests
        self._requests.append(b"")
        self._place = len(requests) - 1

    def recv(self, size: int) -> bytes:
        found = self._sock.recv(size)
        self._requests[self._place] += found
        return found

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)


def get(egress: HttpEgress, url: str, *origins: str, **fields: object) -> EgressResponse:
    """A request to a URL, which may go to ``origins``."""
    fields = {"method": "GET", "timeout_s": 60.0} | fields
    return egress.fetch(EgressRequest(url=url, origins=frozenset(origins), **fields))  # type: ignore[arg-type]
