"""Queue on SQLite: rows of the writer's database, in the same commits as the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hanzo_compute.adapters import checks
from hanzo_compute.adapters.local.client import Requests
from hanzo_compute.ports import Body, Clock, Ids, Message


class SqliteQueue:
    """SQS's standard queue on one machine; ``max_receives`` by queue name, 5 for those not named."""

    def __init__(self, client: Requests, clock: Clock, ids: Ids, max_receives: Mapping[str, int] | None = None) -> None:
        self._client = client
        self._clock = clock
        self._ids = ids
        self._max_receives = dict(max_receives or {})

    def send(self, queue: str, body: Body, *, delay_s: int = 0) -> None:
        """Send a message that becomes visible after ``delay_s`` (at most 900) seconds."""
        self._client.request("send", *self.row(queue, body, delay_s))

    def row(self, queue: str, body: Body, delay_s: int) -> tuple[Any, ...]:
        """What the writer inserts for a message."""
        checks.check_queue(queue)
        checks.check_seconds("delay_s", delay_s, checks.DELAY_S_MAX)
        text = checks.encode_body(body, checks.MESSAGE_MAX).decode()
        now = self._clock.now_ms()
        return queue, self._ids.new("msg", now), text, now, now + delay_s * 1000

    def receive(self, queue: str, *, limit: int = 10, visibility_s: int = 30) -> list[Message]:
        """Take and hide up to ``limit`` visible messages; those received too often go to the dead letters."""
        checks.check_queue(queue)
        checks.check_limit(limit)
        checks.check_seconds("visibility_s", visibility_s, checks.VISIBILITY_S_MAX)
        now, most = self._clock.now_ms(), checks.max_receives(self._max_receives, queue)
        rows = self._client.request("receive", queue, now, now + visibility_s * 1000, limit, most)["ok"]
        return [
            Message(name, queue, checks.decode_body(body), f"{seq}:{deliveries}", receives, sent_ms)
            for seq, name, body, sent_ms, receives, deliveries in rows
        ]

    def ack(self, messages: Sequence[Message]) -> None:
        """Remove messages; a receipt that is stale or unknown is ignored."""
        held = [(message.queue, receipt) for message in messages if (receipt := _receipt(message))]
        if held:
            self._client.request("ack", held, self._clock.now_ms())

    def nack(self, message: Message, *, delay_s: int = 0) -> None:
        """Make a message visible again after ``delay_s``; a stale receipt is ignored."""
        checks.check_seconds("delay_s", delay_s, checks.DELAY_S_MAX)
        receipt = _receipt(message)
        if receipt:
            now = self._clock.now_ms()
            self._client.request("nack", message.queue, receipt, now, now + delay_s * 1000)

    def redrive(self, queue: str, *, limit: int = 10) -> int:
        """Move up to ``limit`` of the queue's dead letters back to it, counts reset; returns how many."""
        checks.check_queue(queue)
        checks.check_limit(limit)
        moved: int = self._client.request("redrive", queue, self._clock.now_ms(), limit)["ok"]
        return moved

    def hasten(self, queue: str, *, by_s: int) -> int:
        """Let each hidden message become visible ``by_s`` seconds earlier, now at the earliest; returns how many."""
        checks.check_queue(queue)
        checks.check_seconds("by_s", by_s, checks.HASTEN_S_MAX)
        moved: int = self._client.request("hasten", queue, self._clock.now_ms(), by_s * 1000)["ok"]
        return moved


def _receipt(message: Message) -> tuple[int, str, int] | None:
    seq, _, delivery = message.receipt.partition(":")
    return (int(seq), message.id, int(delivery)) if seq.isdecimal() and delivery.isdecimal() else None
