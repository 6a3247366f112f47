"""What the writer process holds, in memory: records, messages, and the batch that is not yet committed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import RLock
from typing import Any, Concatenate, ParamSpec, TypeVar

from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Entries

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as JSON with its index entries."""

    rev: int
    body: bytes
    index: Entries


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message; ``deliveries`` never goes back, which makes receipts unique; ``receives`` is what counts."""

    seq: int
    id: str
    queue: str
    body: bytes
    sent_ms: int
    visible_ms: int
    receives: int = 0
    deliveries: int = 0

    @property
    def receipt(self) -> str:
        """Names the last delivery."""
        return f"{self.id}:{self.deliveries}"


def alone(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """One thread at a time in all these methods of a database's twins, as the writer does one thing at a time."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._database.lock:
            return method(self, *args, **kwargs)

    return call


class MemoryDatabase:
    """Records and messages of all simulated processes that share it.

    Each write is durable at once; with ``manual=True`` it becomes so by :meth:`commit`, and :meth:`fail`
    takes back everything since the last commit, as a failed commit or a killed writer does.
    """

    def __init__(self, *, manual: bool = False) -> None:
        self.lock = RLock()
        """Held by whoever reads or writes."""
        self.batch = 0
        """Number of the open batch."""
        self.partitions: dict[str, dict[str, StoredRecord]] = {}
        self.entries: dict[tuple[str, str], dict[Key, str]] = {}
        self.messages: dict[int, StoredMessage] = {}
        self.seqs = count(1)
        self.listeners: list[Callable[[int, bool, list[str]], None]] = []
        self._manual = manual
        self._undo: list[Callable[[], None]] = []
        self._woken: dict[str, None] = {}

    @property
    def dirty(self) -> bool:
        """True while something is applied and not committed."""
        return bool(self._undo)

    def record(self, key: Key) -> StoredRecord | None:
        """The record at ``key``."""
        return self.partitions.get(key.pk, {}).get(key.sk)

    def set_record(self, key: Key, record: StoredRecord | None) -> None:
        """Replace or remove a record and its index entries, in the open batch."""
        before = self.record(key)
        self._undo.append(lambda: self._place(key, before))
        self._woken[key.pk] = None
        if record is not None:
            self._woken.update(dict.fromkeys(pk for pk, _ in record.index.values()))
        self._place(key, record)

    def _place(self, key: Key, record: StoredRecord | None) -> None:
        before = self.partitions.setdefault(key.pk, {}).pop(key.sk, None)
        for index, (pk, _) in (before.index if before else {}).items():
            del self.entries[index, pk][key]
        if record is None:
            return
        self.partitions[key.pk][key.sk] = record
        for index, (pk, sk) in record.index.items():
            self.entries.setdefault((index, pk), {})[key] = sk

    def set_message(self, seq: int, message: StoredMessage | None, *, wake: str | None = None) -> None:
        """Replace or remove a message, in the open batch."""
        before = self.messages.get(seq)
        self._undo.append(lambda: self._place_message(seq, before))
        if wake is not None:
            self._woken[wake] = None
        self._place_message(seq, message)

    def _place_message(self, seq: int, message: StoredMessage | None) -> None:
        self.messages.pop(seq, None)
        if message is not None:
            self.messages[seq] = message

    def applied(self) -> None:
        """End of one operation."""
        if self.dirty and not self._manual:
            self.commit()

    def commit(self) -> None:
        """Make all that is applied durable."""
        with self.lock:
            self._end(durable=True, woken=list(self._woken))

    def fail(self) -> None:
        """Take back all that was applied since the last commit."""
        with self.lock:
            while self._undo:
                self._undo.pop()()
            self._end(durable=False, woken=[])

    def _end(self, *, durable: bool, woken: list[str]) -> None:
        self._undo.clear()
        self._woken.clear()
        ended, self.batch = self.batch, self.batch + 1
        for listener in self.listeners:
            listener(ended, durable, woken)
