"""Messages in SQL, for the writer. Times come from the client's clock, ids from its Ids."""

from __future__ import annotations

import sqlite3
from typing import Any

from hanzo_compute.ports import DEAD_LETTERS

Row = tuple[Any, ...]
Receipt = tuple[int, str, int]
"""``seq``, id and number of the delivery: a later delivery, or another message at ``seq``, does not match."""

_VISIBLE = (
    "SELECT seq, id, body, sent_ms, receives + 1, deliveries + 1 FROM messages"
    " WHERE queue = ? AND visible_ms <= ? ORDER BY visible_ms, seq LIMIT ?"
)
_HIDE = "UPDATE messages SET visible_ms = ?, receives = receives + 1, deliveries = deliveries + 1 WHERE seq = ?"
_BURY = "UPDATE messages SET queue = ?, receives = 0, visible_ms = ? WHERE seq = ?"
_ACK = "DELETE FROM messages WHERE seq = ? AND id = ? AND deliveries = ? AND queue = ? AND visible_ms > ?"
_NACK = (
    "UPDATE messages SET visible_ms = ? WHERE seq = ? AND id = ? AND deliveries = ? AND queue = ? AND visible_ms > ?"
)


def send(db: sqlite3.Connection, queue: str, message: str, body: str, now_ms: int, visible_ms: int) -> None:
    """Insert one message."""
    db.execute(
        "INSERT INTO messages (id, queue, body, sent_ms, visible_ms) VALUES (?, ?, ?, ?, ?)",
        (message, queue, body, now_ms, visible_ms),
    )


def receive(
    db: sqlite3.Connection, queue: str, now_ms: int, visible_ms: int, limit: int, most: int | None
) -> tuple[list[Row], int]:
    """Hide up to ``limit`` visible messages, and move those in front of them that were received ``most`` times to
    the dead letters; rows of seq, id, body, sent_ms, receives, deliveries, and how many were moved."""
    found: list[Row] = []
    moved = 0
    while True:
        rows = db.execute(_VISIBLE, (queue, now_ms, limit - len(found))).fetchall()
        dead = [row for row in rows if most is not None and row[4] > most]
        good = [row for row in rows if most is None or row[4] <= most]
        db.executemany(_BURY, [(queue + DEAD_LETTERS, now_ms, row[0]) for row in dead])
        db.executemany(_HIDE, [(visible_ms, row[0]) for row in good])
        found += good
        moved += len(dead)
        if not dead:
            return found, moved


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


def hasten(db: sqlite3.Connection, queue: str, now_ms: int, by_ms: int) -> int:
    """Let hidden messages become visible earlier; returns how many."""
    return db.execute(
        "UPDATE messages SET visible_ms = max(?, visible_ms - ?) WHERE queue = ? AND visible_ms > ?",
        (now_ms, by_ms, queue, now_ms),
    ).rowcount
