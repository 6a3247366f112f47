"""Opening and migrating the database file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hanzo_compute.adapters.local import records, schema


def version_of(path: Path) -> tuple[int, list[str]]:
    db = sqlite3.connect(path)
    try:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return db.execute("PRAGMA user_version").fetchone()[0], sorted(tables)
    finally:
        db.close()


def test_a_new_database_is_synchronous_and_versioned(tmp_path: Path) -> None:
    db = schema.open_for_writing(tmp_path / "db")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()
    assert version_of(tmp_path / "db") == (len(schema.MIGRATIONS), ["entries", "messages", "records"])


def test_later_migrations_run_once_on_the_data_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db"
    db = schema.open_for_writing(path)
    db.execute("INSERT INTO records VALUES ('p', 's', 1, '{}', NULL)")
    db.close()
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE later AS SELECT count(*) AS n FROM records",))
    )
    for _ in range(2):
        db = schema.open_for_writing(path)
        assert db.execute("SELECT n FROM later").fetchall() == [(1,)]
        db.close()
    assert version_of(path)[0] == len(schema.MIGRATIONS)


def test_a_migration_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "db"
    schema.open_for_writing(path).close()
    before = version_of(path)
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE half (x)", "CREATE TABLE records (x)"))
    )
    with pytest.raises(schema.DatabaseRefused):
        schema.open_for_writing(path)
    assert version_of(path) == before


def test_reading_connections_cannot_write(tmp_path: Path) -> None:
    writing = schema.open_for_writing(tmp_path / "odd ?#%name")
    reading = schema.open_for_reading(tmp_path / "odd ?#%name")
    assert records.get(reading, "p", "s") is None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reading.execute("DELETE FROM records")
    reading.close()
    writing.close()


@pytest.mark.parametrize("sql", [*records._QUERY.values(), *records._QUERY_INDEX.values()])
def test_ranges_are_read_in_order_from_the_key(tmp_path: Path, sql: str) -> None:
    db = schema.open_for_writing(tmp_path / "db")
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", [""] * sql.count("?"))]
    db.close()
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in plan)
