"""Messages in SQL, for the writer. Times come from the client's clock, ids from its Ids."""

from __future__ import annotations

import sqlite3
from typing import Any

from hanzo_compute.ports import DEAD_LETTERS

Row = tuple[Any, ...]
Receipt = tuple[int, str, int]
"""``seq``, id and number of the delivery: a later delivery, or another message at ``seq``, does not match."""

_ACK = "DELETE FROM messages WHERE seq = ? AND id = ? AND deliveries = ? AND queue = ? AND visible_ms > ?"
_NACK = (
    "UPDATE messages SET visible_ms = ? WHERE seq = ? AND id = ? AND deliveries = ? AND queue = ? AND visible_ms > ?"
)
_BURY = (
    "UPDATE messages SET queue = ?, receives = 0, visible_ms = ? WHERE receives >= ? AND seq IN (SELECT seq"
    " FROM messages WHERE queue = ? AND visible_ms <= ? ORDER BY visible_ms, seq LIMIT ?)"
)


def send(db: sqlite3.Connection, queue: str, message: str, body: str, now_ms: int, visible_ms: int) -> None:
    """Insert one message."""
    db.execute(
        "INSERT INTO messages (id, queue, body, sent_ms, visible_ms) VALUES (?, ?, ?, ?, ?)",
        (message, queue, body, now_ms, visible_ms),
    )


def bury(db: sqlite3.Connection, queue: str, now_ms: int, max_receives: int, limit: int) -> int:
    """Move what was received too often to the dead letters, until none is among the next ``limit``; returns how many.

    Only the head of the queue is looked at: what lies behind it may be much.
    """
    args = (queue + DEAD_LETTERS, now_ms, max_receives, queue, now_ms, limit)
    buried = 0
    while moved := db.execute(_BURY, args).rowcount:
        buried += moved
    return buried


def receive(db: sqlite3.Connection, queue: str, now_ms: int, visible_ms: int, limit: int) -> list[Row]:
    """Hide up to ``limit`` visible messages; rows of seq, id, body, sent_ms, receives, deliveries."""
    rows = db.execute(
        "SELECT seq, id, body, sent_ms, receives + 1, deliveries + 1 FROM messages"
        " WHERE queue = ? AND visible_ms <= ? ORDER BY visible_ms, seq LIMIT ?",
        (queue, now_ms, limit),
    ).fetchall()
    db.executemany(
        "UPDATE messages SET visible_ms = ?, receives = receives + 1, deliveries = deliveries + 1 WHERE seq = ?",
        [(visible_ms, row[0]) for row in rows],
    )
    return rows


def ack(db: sqlite3.Connection, held: list[tuple[str, Receipt]], now_ms: int) -> None:
    """Remove the messages that these receipts of these queues still hold."""
    db.executemany(_ACK, [(*receipt, queue, now_ms) for queue, receipt in held])


def nack(db: sqlite3.Connection, queue: str, receipt: Receipt, now_ms: int, visible_ms: int) -> bool:
    """Give a message back if the receipt still holds it; returns whether it did."""
    return db.execute(_NACK, (visible_ms, *receipt, queue, now_ms)).rowcount == 1


def redrive(db: sqlite3.Connection, queue: str, now_ms: int, limit: int) -> int:
    """Move visible dead letters back to their queue; returns how many."""
    return db.execute(
        "UPDATE messages SET queue = ?, receives = 0, visible_ms = ? WHERE seq IN (SELECT seq FROM messages"
        " WHERE queue = ? AND visible_ms <= ? ORDER BY visible_ms, seq LIMIT ?)",
        (queue, now_ms, queue + DEAD_LETTERS, now_ms, limit),
    ).rowcount
