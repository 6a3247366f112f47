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
_TOGETHER: Final = 8
"""Records that are looked up by one statement."""
_NONE: Final = (ABSENT, None)
_CURRENT: Final = "SELECT rev, entries FROM records WHERE pk = ? AND sk = ?"
_CURRENT_OF_MANY: Final = (
    f"WITH wanted (pk, sk) AS (VALUES {', '.join(['(?, ?)'] * _TOGETHER)})"  # noqa: S608
    " SELECT pk, sk, rev, entries FROM wanted CROSS JOIN records USING (pk, sk)"
)
"""Looks up each by the primary key: what is wanted is the outer loop of a cross join."""
_INSERT: Final = "INSERT INTO records (rev, body, entries, pk, sk) VALUES (?, ?, ?, ?, ?)"
_UPDATE: Final = "UPDATE records SET rev = ?, body = ?, entries = ? WHERE pk = ? AND sk = ?"
_DELETE: Final = "DELETE FROM records WHERE pk = ? AND sk = ?"
_DELETE_ENTRY: Final = "DELETE FROM entries WHERE name = ? AND ipk = ? AND isk = ? AND pk = ? AND sk = ?"
_INSERT_ENTRY: Final = "INSERT INTO entries VALUES (?, ?, ?, ?, ?)"
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
    found = _current(db, [(pk, sk) for _, pk, sk, *_ in operations])
    failed = [each for each in operations if each[3] is not None and each[3] != found.get((each[1], each[2]), _NONE)[0]]
    if failed:
        return [(pk, sk, *(get(db, pk, sk) or (ABSENT, ""))) for _, pk, sk, *_ in failed]
    made: list[Row] = []
    changed: list[Row] = []
    gone: list[Row] = []
    stale: list[Row] = []
    fresh: list[Row] = []
    for kind, pk, sk, _, *rest in operations:
        rev, text = found.get((pk, sk), _NONE)
        if kind == "check" or (kind == "delete" and rev == ABSENT):
            continue
        before: dict[str, list[str]] = from_json(text, cache_strings="keys") if text else {}
        after: dict[str, list[str]] = rest[1] if kind == "put" else {}
        if kind == "put":
            row = (rev + 1, rest[0], to_json(after).decode() if after else None, pk, sk)
            (made if rev == ABSENT else changed).append(row)
        else:
            gone.append((pk, sk))
        if before != after:
            stale += [(name, *entry, pk, sk) for name, entry in before.items() if after.get(name) != entry]
            fresh += [(name, *entry, pk, sk) for name, entry in after.items() if before.get(name) != entry]
    # One call for all rows of a kind costs less than half of one for each.
    for statement, rows in (
        (_INSERT, made),
        (_UPDATE, changed),
        (_DELETE, gone),
        (_DELETE_ENTRY, stale),
        (_INSERT_ENTRY, fresh),
    ):
        if rows:
            db.executemany(statement, rows)
    return []


def _current(db: sqlite3.Connection, keys: list[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, str | None]]:
    """Revision and entries of the records that are there."""
    found: dict[tuple[str, str], tuple[int, str | None]] = {}
    whole = len(keys) - len(keys) % _TOGETHER
    for start in range(0, whole, _TOGETHER):
        part = [text for key in keys[start : start + _TOGETHER] for text in key]
        found.update({(pk, sk): (rev, entries) for pk, sk, rev, entries in db.execute(_CURRENT_OF_MANY, part)})
    for key in keys[whole:]:
        row = db.execute(_CURRENT, key).fetchone()
        if row is not None:
            found[key] = row
    return found


def _successor(prefix: str) -> str | None:
    """The least string above all that start with ``prefix``; None when there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < _LAST_CHARACTER:
            # Surrogates are no characters: the one after U+D7FF is U+E000.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None
