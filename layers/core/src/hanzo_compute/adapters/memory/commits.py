"""Tickets on the batches of a memory database: one instance for each process that shares it."""

from __future__ import annotations

import socket

from hanzo_compute.adapters.memory.database import MemoryDatabase
from hanzo_compute.errors import Unavailable
from hanzo_compute.ports import CommitNews


class MemoryCommits:
    """Twin of the connection that a process has to the writer."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self.database = database or MemoryDatabase()
        self.database.listeners.append(self._ended)
        self._touched = False
        """Something since the last ``take`` depends on the open batch …"""
        self._lost = False
        """… or on one that was lost."""
        self._last = 0
        self._open: list[int] = []
        self._failures: set[int] = set()
        self._durable: list[int] = []
        self._failed: list[int] = []
        self._woken: dict[str, None] = {}
        self._pipe: tuple[socket.socket, socket.socket] | None = None

    def check(self) -> None:
        """Called by the twins before a write or a fresh read. Raises Unavailable until a loss is taken note of."""
        if self._lost:
            raise Unavailable("an earlier write of this caller was lost", hint="repeat the request")

    def touch(self) -> None:
        """Called by the twins after a write or a fresh read: what it did or saw may still be lost."""
        self._touched = self._touched or self.database.dirty
        self.database.applied()

    def _ended(self, _batch: int, durable: bool, woken: list[str]) -> None:
        if durable:
            self._durable.extend(self._open)
        else:
            self._fail(self._open)
            self._lost = self._lost or self._touched
        self._open = []
        self._touched = False
        self._woken.update(dict.fromkeys(woken))
        self._signal()

    def _fail(self, tickets: list[int]) -> None:
        self._failed.extend(tickets)
        self._failures.update(tickets)

    def take(self) -> int | None:
        """A ticket for all writes and fresh reads since the last call; None when nothing is to be awaited."""
        with self.database.lock:
            if not (self._touched or self._lost):
                return None
            self._last += 1
            if self._lost:
                self._fail([self._last])
                self._signal()
            else:
                self._open.append(self._last)
            self._touched = self._lost = False
            return self._last

    def news(self) -> CommitNews:
        """What has been said since the last call."""
        with self.database.lock:
            found = CommitNews(self._durable, self._failed, list(self._woken))
            self._durable, self._failed, self._woken = [], [], {}
            if self._pipe and self._signalled(self._pipe[0]):
                self._pipe[0].recv(1)
            return found

    def wait(self, ticket: int, timeout_s: float = 30.0) -> None:
        """Commit if the ticket is open. Raises Unavailable when its writes were lost."""
        with self.database.lock:
            if ticket in self._open:
                self.database.commit()
            lost = ticket in self._failures
        if lost:
            raise Unavailable("the write was lost before it was durable", hint="repeat the request")

    def fileno(self) -> int:
        """A descriptor that is readable while there is news; made at the first call."""
        with self.database.lock:
            if self._pipe is None:
                self._pipe = socket.socketpair()
                self._signal()
            return self._pipe[0].fileno()

    def _signal(self) -> None:
        news = self._durable or self._failed or self._woken
        if self._pipe and news and not self._signalled(self._pipe[0]):
            self._pipe[1].send(b"!")

    @staticmethod
    def _signalled(end: socket.socket) -> bool:
        try:
            return bool(end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close the descriptor and stop to listen."""
        with self.database.lock:
            self.database.listeners.remove(self._ended)
            for end in self._pipe or ():
                end.close()
            self._pipe = None
