"""No statement of the store looks at more rows than it needs, whatever the size: each finds its rows by key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.local import records, schema
from hanzo_compute.adapters.local.engine import Engine

PUT = ["put", "P", "S", None, json.dumps({"a": 1}), {"tenant": ["T", "1"], "due": ["D", "1"]}]
MOVED = [*PUT[:5], {"tenant": ["T", "1"], "due": ["D", "2"]}]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(schema.open_for_writing(tmp_path / "db.sqlite3")) as opened:
        yield opened


def use(db: sqlite3.Connection) -> None:
    """Every operation of the writer, and every read of the others."""
    path = Path(db.execute("PRAGMA database_list").fetchone()[2])
    engine = Engine(db, path)

    def apply(operation: str, *args: Any) -> Any:
        answer = engine.apply({"op": operation, "args": list(args)})
        assert "error" not in answer, answer
        return answer.get("ok")

    apply("transact", [PUT], [])
    apply("transact", [MOVED], [["q", "m-0", "{}", 1, 1]])
    apply("get", "P", "S")
    for reverse in (False, True):
        apply("query", "P", "S", "", 10, reverse)
        records.query_index(db, "due", "D", "", "9", 10, reverse)
    apply("transact", [["delete", "P", "S", None]], [])
    for number in range(3):
        apply("send", "q", f"m-{number}", "{}", 1, 1)
    held = apply("receive", "q", 2, 10, 2, 5)
    first, second = ((seq, name, count) for seq, name, _, _, _, count in held[:2])
    apply("ack", [["q", first]], 3)
    apply("nack", "q", second, 3, 4)
    apply("receive", "q", 5, 10, 10, 1)
    apply("redrive", "q", 6, 10)
    apply("hasten", "q", 7, 1000)
    engine.commit()


def test_every_statement_finds_its_rows_by_key(db: sqlite3.Connection) -> None:
    said: list[str] = []
    db.set_trace_callback(said.append)
    use(db)
    db.set_trace_callback(None)
    asked = [text for text in said if text.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")]
    assert {text.split()[0] for text in asked} >= {"SELECT", "INSERT", "UPDATE", "DELETE"}
    for text in asked:
        plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {text}")]
        assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], (text, plan)
