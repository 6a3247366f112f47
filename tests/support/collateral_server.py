"""An HTTP server on loopback that plays the vendors' services: their answers, their outages and their lies."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class How(Enum):
    """How an answer is sent."""

    WHOLE = auto()
    RESET = auto()
    """The connection is reset before anything is said."""
    TRUNCATED = auto()
    """It ends in the middle of its body."""
    CHUNKS_CUT = auto()
    """The same, of a body in chunks: its length was never said."""
    DRIP = auto()
    """A byte now and then, the head included."""
    DRIP_BODY = auto()
    HANG = auto()
    """Nothing, until the server ends."""


@dataclass(frozen=True)
class Reply:
    """An answer."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    how: How = How.WHOLE
    delay_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answering = Reply | Callable[[Asked], Reply]


class CollateralServer:
    """Answers what it was told to: by path with query, whatever the method; 404 else."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self._steady: dict[str, Answering] = {}
        self._next: defaultdict[str, deque[Answering]] = defaultdict(deque)
        self._lock = threading.Lock()
        self.ending = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self._scheme = "https" if tls else "http"
        if tls:
            # The handshake is each connection's own thread's, so that one that fails stops no other.
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    def serve(self, path: str, answer: Answering) -> None:
        """From now on this is the answer."""
        self._steady[path] = answer

    def then(self, path: str, *answers: Answering) -> None:
        """These are the next ones, each once, before the steady one."""
        self._next[path].extend(answers)

    def fail(self, answer: Answering) -> None:
        """From now on this is the answer to everything."""
        self._steady = dict.fromkeys(self._steady, answer)

    def count(self, part: str = "") -> int:
        """Requests for paths with ``part``."""
        return sum(part in each.path for each in self.asked)

    def answer(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            waiting = self._next[asked.path]
            found = waiting.popleft() if waiting else self._steady.get(asked.path, Reply(status=404))
        return found if isinstance(found, Reply) else found(asked)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: CollateralServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 5

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.owner.answer(Asked(self.command, self.path, headers, self.rfile.read(length)))
        if reply.delay_s:
            self.server.owner.ending.wait(reply.delay_s)
        with suppress(OSError):
            self._send(reply)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def _send(self, reply: Reply) -> None:
        head = f"HTTP/1.1 {reply.status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in reply.headers.items())
        chunked = reply.how is How.CHUNKS_CUT
        head += "Transfer-Encoding: chunked\r\n\r\n" if chunked else f"Content-Length: {len(reply.body)}\r\n\r\n"
        self.close_connection = reply.how is not How.WHOLE
        match reply.how:
            case How.WHOLE:
                self.wfile.write(head.encode() + reply.body)
            case How.RESET:
                # With this option a close is a reset.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case How.TRUNCATED:
                self.wfile.write(head.encode() + reply.body[: len(reply.body) // 2])
            case How.CHUNKS_CUT:
                half = reply.body[: len(reply.body) // 2]
                self.wfile.write(head.encode() + b"%x\r\n%s\r\n" % (len(half), half))
            case How.DRIP:
                self._drip(head.encode() + reply.body)
            case How.DRIP_BODY:
                self.wfile.write(head.encode())
                self._drip(reply.body)
            case How.HANG:
                self.server.owner.ending.wait(30)

    def _drip(self, data: bytes) -> None:
        for index in range(len(data)):
            if self.server.owner.ending.is_set():
                return
            self.wfile.write(data[index : index + 1])
            time.sleep(0.05)
