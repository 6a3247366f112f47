"""The writer's loop: one thread, many clients, none of which can make it wait."""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections import deque
from typing import Any, Final

from hanzo_compute.adapters.local.engine import BatchLost, Engine
from hanzo_compute.adapters.local.frames import PROTOCOL, REQUEST_MAX, Decoder, Frame, encode

BATCH_MAX: Final = 256
"""Requests in one commit."""
PACE_S: Final = 0.002
"""From the begin of one commit to that of the next, at least, while several clients write: each commit costs as much as
several requests, and so do the news of it to every client. Who writes alone does not wait."""
BACKLOG_MAX: Final = 8 * 2**20
"""Bytes that a client may leave unread before it is disconnected."""
_READ: Final = 256 * 1024
_DRAIN_S: Final = 2.0
_FULL_S: Final = 1.0
"""How long nobody is let in after the process ran out of descriptors."""

_log = logging.getLogger("hanzo_compute.writer")


class _Client:
    """One connection; ``last`` is its last request in the open batch, ``answered`` its last request at all."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = Decoder(REQUEST_MAX)
        self.out = bytearray()
        self.wakes = False
        self.last: int | None = None
        self.answered = 0
        self.open = True


class Server:
    """Serves an engine on a listening socket until :meth:`stop`."""

    def __init__(self, listener: socket.socket, engine: Engine) -> None:
        self._engine = engine
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Client] = set()
        self._waiting: deque[tuple[_Client, Frame]] = deque()
        self._stopping = False
        self._begun = 0.0
        """When the last commit began, on the monotonic clock."""
        self._writers: set[_Client] = set()
        """Clients with a part in the open batch …"""
        self._before: set[_Client] = set()
        """… and in the one before it."""
        self._closed_until: float | None = None
        """On the monotonic clock; None while clients are let in."""
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def wake_by(self, descriptor: socket.socket) -> None:
        """Let a readable descriptor (that of the signal handlers) end the wait for requests."""
        self._selector.register(descriptor, selectors.EVENT_READ)

    def stop(self) -> None:
        """Make :meth:`run` return after the open batch."""
        self._stopping = True

    def run(self) -> None:
        """Serve: read what waits, apply it, and commit once nothing more waits and it is time, or the batch is full.

        Raises:
            StoreUnusable: the open batch is lost; end, and with that all connections.
        """
        while not self._stopping:
            if self._waiting or self._engine.size >= BATCH_MAX:
                self._poll(0)
            else:
                self._poll(self._patience() if self._engine.size else self._reopen())
            applied = self._apply_waiting()
            if self._engine.size >= BATCH_MAX or (self._engine.size and not applied and not self._patience()):
                self._commit()
        if self._engine.size:
            self._commit()
        for client in list(self._clients):
            self._send(client, {"bye": client.answered})
        self._drain()

    def _patience(self) -> float:
        """Seconds until the open batch may be committed."""
        if len(self._writers | self._before) < 2:
            return 0.0
        return max(0.0, self._begun + PACE_S - time.monotonic())

    def _poll(self, timeout: float | None) -> None:
        for key, mask in self._selector.select(timeout):
            if key.fileobj is self._listener:
                self._accept()
            elif key.data is None:
                return  # a signal: the loop looks at its flag
            elif mask & selectors.EVENT_WRITE:
                self._flush(key.data)
            elif len(self._waiting) < BATCH_MAX:
                self._read(key.data)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            # The client stays in line; asked at once, the kernel would only say the same again, and again.
            _log.warning("cannot accept a client, looking again in %.0f s: %s", _FULL_S, error.strerror)
            self._selector.unregister(self._listener)
            self._closed_until = time.monotonic() + _FULL_S
            return
        sock.setblocking(False)
        client = _Client(sock)
        self._clients.add(client)
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _reopen(self) -> float | None:
        """Let clients in again when it is time; returns the seconds until then."""
        if self._closed_until is None:
            return None
        left = self._closed_until - time.monotonic()
        if left > 0:
            return left
        self._closed_until = None
        self._selector.register(self._listener, selectors.EVENT_READ)
        return None

    def _read(self, client: _Client) -> None:
        try:
            data = client.sock.recv(_READ)
            if not data:
                self._drop(client, None)
            for request in client.decoder.feed(data):
                self._waiting.append((client, request))
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self._drop(client, str(error))

    def _drop(self, client: _Client, reason: str | None) -> None:
        if not client.open:
            return
        if reason:
            _log.warning("client disconnected: %s", reason)
        client.open = False
        self._clients.discard(client)
        self._selector.unregister(client.sock)
        client.sock.close()

    def _apply_waiting(self) -> int:
        applied = 0
        while self._waiting and self._engine.size < BATCH_MAX:
            client, request = self._waiting.popleft()
            if client.open:
                self._answer(client, request)
                applied += 1
        return applied

    def _answer(self, client: _Client, request: Frame) -> None:
        match request:
            case {"id": int(number), "op": "hello", "args": [bool(wakes)]}:
                client.wakes = wakes
                client.answered = number
                self._send(client, {"id": number, "ok": PROTOCOL})
            case {"id": int(number), "op": "stats", "args": []}:
                client.answered = number
                self._send(client, {"id": number, "ok": self._stats()})
            case {"id": int(number), "op": str(), "args": list()}:
                self._apply(client, number, request)
            case _:
                self._drop(client, "a request that is none")

    def _stats(self) -> dict[str, int]:
        engine = self._engine
        return {
            "commits": engine.commits,
            "requests": engine.requests,
            "largest_batch": engine.largest,
            "clients": len(self._clients),
        }

    def _apply(self, client: _Client, number: int, request: Frame) -> None:
        client.answered = number
        try:
            answer = self._engine.apply(request)
        except BatchLost as error:
            self._send(client, {"id": number, "error": str(error), "invalid": False})
            self._lose(error)
            return
        client.last = number
        self._writers.add(client)
        self._send(client, {"id": number, **answer})

    def _commit(self) -> None:
        self._begun = time.monotonic()
        self._before, self._writers = self._writers, set()
        try:
            woken = self._engine.commit()
        except BatchLost as error:
            self._lose(error)
            return
        for client in list(self._clients):
            frame: dict[str, Any] = {}
            if client.last is not None:
                frame["durable"] = client.last
            if client.wakes and woken:
                frame["woken"] = woken
            client.last = None
            if frame:
                self._send(client, frame)
        self._engine.tend()

    def _lose(self, error: BatchLost) -> None:
        _log.error("commit failed, its requests are lost: %s", error)
        for client in list(self._clients):
            if client.last is not None:
                last, client.last = client.last, None
                self._send(client, {"failed": last})
                # What it has sent since was said believing that the lost writes stand: none of it is looked at.
                self._drop(client, "its writes were lost")

    def _send(self, client: _Client, frame: Frame) -> None:
        if not client.open:
            return
        if len(client.out) > BACKLOG_MAX:
            self._drop(client, f"it left {len(client.out)} bytes unread")
            return
        client.out += encode(frame)
        self._flush(client)

    def _flush(self, client: _Client) -> None:
        try:
            sent = client.sock.send(client.out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._drop(client, str(error))
            return
        del client.out[:sent]
        # While it does not read answers, it gets to ask nothing.
        self._selector.modify(client.sock, selectors.EVENT_WRITE if client.out else selectors.EVENT_READ, client)

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_S
        while any(client.out for client in self._clients) and time.monotonic() < deadline:
            for key, mask in self._selector.select(_DRAIN_S / 10):
                if mask & selectors.EVENT_WRITE:
                    self._flush(key.data)
        for client in list(self._clients):
            self._drop(client, None)
        self._selector.close()
