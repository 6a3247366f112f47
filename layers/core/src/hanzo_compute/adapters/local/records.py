"""Records and index entries in SQL: used by the writer, and for reading by every process."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from pydantic_core import from_json, to_json

from hanzo_compute.ports import ABSENT

Row = tuple[Any, ...]

PAGE_BYTES: Final = 1_000_000
"""Bodies in one answer of the writer; a query asks again for the rest."""

_LAST_CHARACTER: Final = 0x10FFFF
# SQLite sorts every blob behind every text.
_END: Final = b""

_QUERY: Final = {
    False: "SELECT sk, rev, body FROM records WHERE pk = ? AND sk >= ? AND sk < ? ORDER BY sk LIMIT ?",
    True: "SELECT sk, rev, body FROM records WHERE pk = ? AND sk >= ? AND sk < ? ORDER BY sk DESC LIMIT ?",
}
_COUNT_INDEX: Final = "SELECT count(*) FROM (SELECT 1 FROM entries WHERE name = ? AND ipk = ? LIMIT ?)"
_QUERY_INDEX: Final = {
    False: "SELECT isk, pk, sk, rev, body FROM entries JOIN records USING (pk, sk) WHERE name = ? AND ipk = ?"
    " AND isk > ? AND isk < ? ORDER BY isk, entries.pk, entries.sk LIMIT ?",
    True: "SELECT isk, pk, sk, rev, body FROM entries JOIN records USING (pk, sk) WHERE name = ? AND ipk = ?"
    " AND isk > ? AND isk < ? ORDER BY isk DESC, entries.pk DESC, entries.sk DESC LIMIT ?",
}


def get(db: sqlite3.Connection, pk: str, sk: str) -> Row | None:
    """Revision and body of a record."""
    row: Row | None = db.execute("SELECT rev, body FROM records WHERE pk = ? AND sk = ?", (pk, sk)).fetchone()
    return row


def query(
    db: sqlite3.Connection, pk: str, prefix: str, after: str, limit: int, reverse: bool
) -> tuple[list[Row], bool]:
    """Sort key, revision and body of a partition's records, and whether the page was cut at its size."""
    low, high = prefix, _successor(prefix)
    if after and reverse:
        high = after if high is None else min(high, after)
    elif after:
        low = max(low, after + "\0")  # the least string above ``after``
    rows: list[Row] = []
    size = 0
    for row in db.execute(_QUERY[reverse], (pk, low, _END if high is None else high, limit)):
        rows.append(row)
        size += len(row[2])
        if size >= PAGE_BYTES:
            return rows, True
    return rows, False


def query_index(
    db: sqlite3.Connection, name: str, ipk: str, after: str, before: str, limit: int, reverse: bool
) -> list[Row]:
    """Index sort key, key, revision and body of the records of an index partition."""
    return db.execute(_QUERY_INDEX[reverse], (name, ipk, after, before or _END, limit)).fetchall()


def count_index(db: sqlite3.Connection, name: str, ipk: str, most: int) -> int:
    """Entries of an index partition, counted up to ``most``."""
    found: int = db.execute(_COUNT_INDEX, (name, ipk, most)).fetchone()[0]
    return found


def transact(db: sqlite3.Connection, operations: list[Row]) -> list[Row]:
    """Apply ``(kind, pk, sk, expect[, body, entries])`` of kinds put, delete and check, or nothing.

    Returns a row ``(pk, sk, rev, body)`` for each expectation that did not hold; revision 0 is absence.
    """
    found = [_current(db, pk, sk) for _, pk, sk, *_ in operations]
    failed = [
        operation
        for operation, (rev, _) in zip(operations, found, strict=True)
        if operation[3] is not None and operation[3] != rev
    ]
    if failed:
        return [(pk, sk, *(get(db, pk, sk) or (ABSENT, ""))) for _, pk, sk, *_ in failed]
    for (kind, pk, sk, _, *rest), (rev, entries) in zip(operations, found, strict=True):
        if kind == "put":
            _put(db, (pk, sk), rev + 1, rest[0], entries, rest[1])
        elif kind == "delete" and rev != ABSENT:
            db.execute("DELETE FROM records WHERE pk = ? AND sk = ?", (pk, sk))
            _replace_entries(db, (pk, sk), entries, {})
    return []


def _current(db: sqlite3.Connection, pk: str, sk: str) -> tuple[int, dict[str, list[str]]]:
    row = db.execute("SELECT rev, entries FROM records WHERE pk = ? AND sk = ?", (pk, sk)).fetchone()
    return (row[0], from_json(row[1]) if row[1] else {}) if row else (ABSENT, {})


def _put(
    db: sqlite3.Connection,
    key: tuple[str, str],
    rev: int,
    body: str,
    before: dict[str, list[str]],
    entries: dict[str, list[str]],
) -> None:
    text = to_json(entries).decode() if entries else None
    db.execute(
        "INSERT INTO records (pk, sk, rev, body, entries) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET rev = excluded.rev, body = excluded.body, entries = excluded.entries",
        (*key, rev, body, text),
    )
    _replace_entries(db, key, before, entries)


def _replace_entries(
    db: sqlite3.Connection,
    key: tuple[str, str],
    before: dict[str, list[str]],
    after: dict[str, list[str]],
) -> None:
    for name, entry in before.items():
        if after.get(name) != entry:
            db.execute(
                "DELETE FROM entries WHERE name = ? AND ipk = ? AND isk = ? AND pk = ? AND sk = ?",
                (name, *entry, *key),
            )
    for name, entry in after.items():
        if before.get(name) != entry:
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (name, *entry, *key))


def _successor(prefix: str) -> str | None:
    """The least string above all that start with ``prefix``; None when there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < _LAST_CHARACTER:
            # Surrogates are no characters: the one after U+D7FF is U+E000.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None
