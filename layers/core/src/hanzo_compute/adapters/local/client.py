"""A process's connection to the writer: requests return when applied, news tells when they are durable."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from threading import RLock
from typing import Any, Final, Protocol

from hanzo_compute.adapters.local.frames import PROTOCOL, Decoder, Frame, connect, encode
from hanzo_compute.adapters.local.tickets import Tickets
from hanzo_compute.errors import InternalError, Unavailable
from hanzo_compute.ports import WAKE_ALL, CommitNews

_BACKOFF_S: Final = (0.01, 0.02, 0.05, 0.1, 0.25)
_READ: Final = 256 * 1024
_HINT: Final = "repeat the request; if it stays so, see whether the disk is full and the platform is up (hzc doctor)"


class Requests(Protocol):
    """What the store and the queue need of a connection."""

    home: Path

    written: set[str]
    """Partitions written since the last ticket was taken: others may not see that yet."""

    def connect(self) -> None:
        """Make sure that the database is there."""
        ...

    def request(self, operation: str, *args: Any) -> Frame:
        """Apply a request."""
        ...


class WriterClient:
    """One Unix socket to the writer; implements :class:`~hanzo_compute.ports.Commits`.

    Connects at the first request and again after the writer was restarted. What was applied and not yet
    durable when the connection ended counts as lost. A writer that ends in good order leaves nothing open and
    says what it did not come to: that goes to the next one. Calls from several threads wait for each other.
    """

    def __init__(
        self, home: Path, *, wakes: bool = False, connect_wait_s: float = 10.0, reply_wait_s: float = 30.0
    ) -> None:
        self.home = home.absolute()
        self._wakes = wakes
        self._connect_wait_s = connect_wait_s
        self._reply_wait_s = reply_wait_s
        self._lock = RLock()
        self._tickets = Tickets()
        self._number = 0
        self._replies: dict[int, Frame] = {}
        self._sock: socket.socket | None = None
        self._decoder = Decoder()
        self._bye: int | None = None
        """The last request that a writer which ends has answered."""
        self._was_connected = False
        self.written: set[str] = set()
        """Partitions written since the last ticket was taken, kept here for who writes them."""
        self._retry_at = 0.0
        self._failures = 0
        # News waits in this object as well as in the socket, and the socket changes: one descriptor for all.
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)

    # Requests

    def request(self, operation: str, *args: Any) -> Frame:
        """Send a request and wait until it is applied; the answer has ``ok`` or ``conflict``.

        Raises:
            Unavailable: the writer did not answer, or could not apply it; or an earlier write was lost, and
                nothing more is done until :meth:`take` has made that known.
        """
        with self._lock:
            self._read_waiting()
            if self._tickets.lost:
                # The caller's next write may make durable what makes no sense without the one that was lost.
                raise Unavailable("an earlier write of this caller was lost", hint=_HINT)
            answer, number = self._ask(operation, args)
            self._tickets.applied = number
        if "error" not in answer:
            return answer
        if answer["invalid"]:
            raise InternalError(f"the writer refused {operation}: {answer['error']}")
        raise Unavailable(f"the store could not write: {answer['error']}", hint=_HINT)

    def connect(self) -> None:
        """Make sure that there is a connection. Raises Unavailable when there is none in time."""
        with self._lock:
            self._connected()

    def stats(self) -> dict[str, int]:
        """The writer's counters: commits, requests, largest_batch, clients."""
        with self._lock:
            self._read_waiting()
            found: dict[str, int] = self._ask("stats", ())[0]["ok"]
            return found

    def _ask(self, operation: str, args: tuple[Any, ...]) -> tuple[Frame, int]:
        while True:
            sock = self._connected()
            try:
                return self._exchange(sock, operation, args)
            except _NotLookedAt:
                continue

    def _exchange(self, sock: socket.socket, operation: str, args: tuple[Any, ...]) -> tuple[Frame, int]:
        self._number += 1
        number = self._number
        deadline = time.monotonic() + self._reply_wait_s
        try:
            sock.settimeout(self._reply_wait_s)
            sock.sendall(encode({"id": number, "op": operation, "args": args}))
            while number not in self._replies:
                if time.monotonic() > deadline:
                    raise TimeoutError("timed out")
                self._read(sock)
        except OSError as error:
            self._read_rest(sock)
            reply, bye = self._replies.get(number), self._bye
            self._disconnect()
            if reply is not None:
                return reply, number
            if bye is not None and bye < number:
                raise _NotLookedAt from error
            raise Unavailable(f"the store's writer did not answer: {error}", hint=_HINT) from error
        return self._replies.pop(number), number

    # Commits

    def take(self) -> int | None:
        """A ticket for all writes and fresh reads since the last call; None when nothing is to be awaited."""
        with self._lock:
            self.written.clear()
            ticket = self._tickets.take()
            self._ring()
            return ticket

    def fileno(self) -> int:
        """A descriptor that becomes readable when there may be news; it stays the same over reconnections.

        While there is no writer nothing rings: call :meth:`news` now and then, it also tries to reconnect.
        """
        return self._epoll.fileno()

    def news(self) -> CommitNews:
        """What has been said since the last call; does not wait."""
        with self._lock:
            self._read_waiting()
            if self._sock is None and time.monotonic() >= self._retry_at:
                self._try_connect()
            found = self._tickets.news()
            self._silence()
            return found

    def wait(self, ticket: int, timeout_s: float = 30.0) -> None:
        """Wait for one ticket, which the news then leaves out. Raises Unavailable: lost, or not in time."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while (durable := self._tickets.outcome(ticket)) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Unavailable(f"not durable within {timeout_s} s", hint=_HINT)
                self._read_within(left)
            self._tickets.forget(ticket)
        if not durable:
            raise Unavailable("the write was lost before it was durable", hint=_HINT)

    def close(self) -> None:
        """Close the connection; open tickets fail."""
        with self._lock:
            self._disconnect()
            if not self._epoll.closed:
                self._epoll.close()
                os.close(self._bell)

    # Connection

    def _connected(self) -> socket.socket:
        deadline = time.monotonic() + self._connect_wait_s
        while self._sock is None:
            error = self._try_connect()
            if error is not None and time.monotonic() >= deadline:
                raise Unavailable(f"no connection to the store's writer: {error}", hint=_HINT)
            if error is not None:
                time.sleep(_backoff(self._failures))
        return self._sock

    def _try_connect(self) -> Exception | None:
        """One attempt; returns why it failed."""
        try:
            self._sock = connect(self.home / "run" / "writer.sock", self._reply_wait_s)
            self._epoll.register(self._sock, select.EPOLLIN)
            version = self._exchange(self._sock, "hello", (self._wakes,))[0].get("ok")
        except (OSError, Unavailable, _NotLookedAt) as error:
            self._failures += 1
            self._retry_at = time.monotonic() + _backoff(self._failures)
            return error
        if version != PROTOCOL:
            self._disconnect()
            raise InternalError(
                f"the writer speaks protocol {version}, this process {PROTOCOL}",
                hint="stop the platform, start it",
            )
        self._failures = 0
        if self._was_connected and self._wakes:
            self._tickets.wake([WAKE_ALL])
            self._ring()
        self._was_connected = True
        return None

    def _disconnect(self) -> None:
        if self._sock is None:
            return
        self._epoll.unregister(self._sock)
        self._sock.close()
        self._sock = None
        self._decoder = Decoder()
        self._bye = None
        self._replies.clear()
        self._tickets.lose(self._tickets.applied)
        self._ring()

    def _read_waiting(self) -> None:
        """Take in what the socket holds, without waiting."""
        while self._read_within(0):
            pass

    def _read_within(self, timeout_s: float) -> bool:
        """Read once; False when nothing came in time or the connection is gone."""
        if self._sock is None:
            return False
        try:
            self._sock.settimeout(timeout_s)
            self._read(self._sock)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            self._disconnect()
            return False
        return True

    def _read(self, sock: socket.socket) -> None:
        """Take in what comes next. Raises OSError when the connection is gone."""
        data = sock.recv(_READ)
        if not data:
            raise ConnectionResetError("the writer has ended")
        for frame in self._decoder.feed(data):
            self._note(frame)
            if "failed" in frame:
                raise ConnectionResetError("the writer ends the connection of writes that were lost")

    def _read_rest(self, sock: socket.socket) -> None:
        """Take in the last words of a writer that has closed the connection; sending fails before they are read."""
        try:
            sock.settimeout(0)
            while data := sock.recv(_READ):
                for frame in self._decoder.feed(data):
                    self._note(frame)
        except (OSError, ValueError):
            return

    def _note(self, frame: Frame) -> None:
        if "id" in frame:
            self._replies[frame["id"]] = frame
            return
        if "bye" in frame:
            self._bye = frame["bye"]
        if "durable" in frame:
            self._tickets.durable(frame["durable"])
        if "failed" in frame:
            self._tickets.lose(frame["failed"])
        if "woken" in frame:
            self._tickets.wake(frame["woken"])
        self._ring()

    def _ring(self) -> None:
        if self._tickets.has_news:
            os.eventfd_write(self._bell, 1)

    def _silence(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return


class _NotLookedAt(Exception):
    """The writer ended before it came to a request: nothing of it was applied."""


def _backoff(failures: int) -> float:
    return _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1]
