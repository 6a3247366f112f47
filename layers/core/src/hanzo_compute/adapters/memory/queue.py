"""Queue in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hanzo_compute.adapters import checks
from hanzo_compute.adapters.memory.commits import MemoryCommits
from hanzo_compute.adapters.memory.database import StoredMessage, alone
from hanzo_compute.ports import DEAD_LETTERS, Body, Clock, Message, queue_wake


class MemoryQueue:
    """The strict twin of the other queues: longest visible first; a receipt is dead when time is up."""

    def __init__(
        self,
        clock: Clock,
        max_receives: Mapping[str, int] | None = None,
        commits: MemoryCommits | None = None,
    ) -> None:
        self._clock = clock
        self._max_receives = dict(max_receives or {})
        self._commits = commits or MemoryCommits()
        self._database = self._commits.database

    @alone
    def send(self, queue: str, body: Body, *, delay_s: int = 0) -> None:
        """Send a message that becomes visible after ``delay_s`` (at most 900) seconds."""
        message = self.message(queue, body, delay_s)
        self._commits.check()
        self.insert(message)
        self._commits.touch()

    def message(self, queue: str, body: Body, delay_s: int) -> StoredMessage:
        """A message that can be sent. Raises ValueError."""
        checks.check_queue(queue)
        checks.check_seconds("delay_s", delay_s, checks.DELAY_S_MAX)
        text = checks.encode_body(body, checks.MESSAGE_MAX)
        now, seq = self._clock.now_ms(), next(self._database.seqs)
        return StoredMessage(seq, f"msg-{seq}", queue, text, now, now + delay_s * 1000)

    def insert(self, message: StoredMessage) -> None:
        """Add a message to the open batch, as a part of what is written there."""
        self._set(message, wake=message.visible_ms <= message.sent_ms)

    @alone
    def receive(self, queue: str, *, limit: int = 10, visibility_s: int = 30) -> list[Message]:
        """Take and hide up to ``limit`` visible messages; those received too often go to the dead letters."""
        checks.check_queue(queue)
        checks.check_limit(limit)
        checks.check_seconds("visibility_s", visibility_s, checks.VISIBILITY_S_MAX)
        now, most = self._clock.now_ms(), checks.max_receives(self._max_receives, queue)
        self._commits.check()
        received: list[Message] = []
        for message in self._visible(queue, now):
            if most is not None and message.receives >= most:
                self._move(message, queue + DEAD_LETTERS, now)
            elif len(received) < limit:
                received.append(self._deliver(message, now + visibility_s * 1000))
        self._commits.touch()
        return received

    @alone
    def ack(self, messages: Sequence[Message]) -> None:
        """Remove messages; a receipt that is stale or unknown is ignored."""
        self._commits.check()
        for message in messages:
            if held := self._held(message):
                self._database.set_message(held.seq, None)
        self._commits.touch()

    @alone
    def nack(self, message: Message, *, delay_s: int = 0) -> None:
        """Make a message visible again after ``delay_s``; a stale receipt is ignored."""
        checks.check_seconds("delay_s", delay_s, checks.DELAY_S_MAX)
        self._commits.check()
        if held := self._held(message):
            self._set(replace(held, visible_ms=self._clock.now_ms() + delay_s * 1000), wake=delay_s == 0)
        self._commits.touch()

    @alone
    def redrive(self, queue: str, *, limit: int = 10) -> int:
        """Move up to ``limit`` of the queue's dead letters back to it, counts reset; returns how many."""
        checks.check_queue(queue)
        checks.check_limit(limit)
        self._commits.check()
        now = self._clock.now_ms()
        moved = self._visible(queue + DEAD_LETTERS, now)[:limit]
        for message in moved:
            self._move(message, queue, now)
        self._commits.touch()
        return len(moved)

    @alone
    def hasten(self, queue: str, *, by_s: int) -> int:
        """Let each hidden message become visible ``by_s`` seconds earlier, now at the earliest; returns how many."""
        checks.check_queue(queue)
        checks.check_seconds("by_s", by_s, checks.HASTEN_S_MAX)
        self._commits.check()
        now = self._clock.now_ms()
        messages = list(self._database.messages.values())
        hidden = [message for message in messages if message.queue == queue and message.visible_ms > now]
        for message in hidden:
            self._set(replace(message, visible_ms=max(now, message.visible_ms - by_s * 1000)), wake=True)
        self._commits.touch()
        return len(hidden)

    def _visible(self, queue: str, now: int) -> list[StoredMessage]:
        messages = self._database.messages.values()
        found = [message for message in messages if message.queue == queue and message.visible_ms <= now]
        return sorted(found, key=lambda message: (message.visible_ms, message.seq))

    def _held(self, message: Message) -> StoredMessage | None:
        now = self._clock.now_ms()
        for held in self._database.messages.values():
            if held.receipt == message.receipt and held.queue == message.queue and held.visible_ms > now:
                return held
        return None

    def _deliver(self, message: StoredMessage, visible_ms: int) -> Message:
        taken = replace(
            message,
            visible_ms=visible_ms,
            receives=message.receives + 1,
            deliveries=message.deliveries + 1,
        )
        self._set(taken)
        body = checks.decode_body(taken.body)
        return Message(taken.id, taken.queue, body, taken.receipt, taken.receives, taken.sent_ms)

    def _move(self, message: StoredMessage, queue: str, now: int) -> None:
        self._set(replace(message, queue=queue, visible_ms=now, receives=0), wake=True)

    def _set(self, message: StoredMessage, *, wake: bool = False) -> None:
        self._database.set_message(message.seq, message, wake=queue_wake(message.queue) if wake else None)
