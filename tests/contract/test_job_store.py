"""The contract of JobStore."""

from __future__ import annotations

from typing import Any

import pytest

from hanzo_compute.adapters.checks import TRANSACTION_BYTES_MAX
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import (
    ABSENT,
    RECORD_MAX,
    TRANSACTION_MAX,
    Check,
    Delete,
    JobStore,
    Operation,
    Put,
    Record,
    WriteConflict,
)
from tests.support.backends import Backend, Process
from tests.support.faults import FaultyStore, scripted


@pytest.fixture
def store(process: Process) -> JobStore:
    return process.store


@pytest.fixture
def pk(backend: Backend) -> str:
    return backend.unique("P")


def sort_keys(records: list[Record]) -> list[str]:
    return [record.key.sk for record in records]


def put_all(store: JobStore, pk: str, names: list[str]) -> None:
    store.transact([Put(Key(pk, sk), {"sk": sk}) for sk in names])


def test_get_returns_what_was_put(store: JobStore, pk: str) -> None:
    body = {"text": "é\u0000\U0001f600", "list": [1, 2.5, None, True], "map": {"": {}}, "big": 2**60}
    store.transact([Put(Key(pk, "a"), body, expect=ABSENT)])
    assert store.get(Key(pk, "a")) == Record(Key(pk, "a"), 1, body)
    assert store.get(Key(pk, "b")) is None


def test_bodies_are_copied_in_and_out(store: JobStore, pk: str) -> None:
    body: dict[str, Any] = {"list": [1]}
    store.transact([Put(Key(pk, "a"), body)])
    body["list"].append(2)
    first = store.get(Key(pk, "a"))
    assert first is not None
    first.body["list"].append(3)
    second = store.get(Key(pk, "a"))
    assert second is not None
    assert second.body == {"list": [1]}


def test_revisions_count_writes(store: JobStore, pk: str) -> None:
    key = Key(pk, "a")
    store.transact([Put(key, {"n": 1}, expect=ABSENT)])
    store.transact([Put(key, {"n": 2}, expect=1)])
    store.transact([Put(key, {"n": 3})])
    assert store.get(key) == Record(key, 3, {"n": 3})
    store.transact([Delete(key, expect=3)])
    assert store.get(key) is None
    store.transact([Put(key, {"n": 4}, expect=ABSENT)])
    assert store.get(key) == Record(key, 1, {"n": 4})


@pytest.mark.parametrize("operation", ["put", "delete", "check"])
@pytest.mark.parametrize("expect", [ABSENT, 1, 3])
def test_a_failed_expectation_changes_nothing_and_shows_what_is_there(
    store: JobStore, pk: str, operation: str, expect: int
) -> None:
    key, other = Key(pk, "a"), Key(pk, "b")
    store.transact([Put(key, {"n": 1})])
    store.transact([Put(key, {"n": 2})])
    failing: Operation
    if operation == "put":
        failing = Put(key, {"n": 3}, expect=expect)
    elif operation == "delete":
        failing = Delete(key, expect=expect)
    else:
        failing = Check(key, expect=expect)
    with pytest.raises(WriteConflict) as caught:
        store.transact([Put(other, {}), failing])
    assert caught.value.current == {key: Record(key, 2, {"n": 2})}
    assert store.get(key) == Record(key, 2, {"n": 2})
    assert store.get(other) is None


def test_a_conflict_names_every_culprit_and_only_those(store: JobStore, pk: str) -> None:
    there, missing, right = Key(pk, "there"), Key(pk, "missing"), Key(pk, "right")
    store.transact([Put(there, {}), Put(right, {})])
    with pytest.raises(WriteConflict) as caught:
        store.transact([Put(there, {}, expect=ABSENT), Delete(missing, expect=1), Check(right, expect=1)])
    assert caught.value.current == {there: Record(there, 1, {}), missing: None}


def test_expectations_that_hold_let_the_transaction_through(store: JobStore, pk: str) -> None:
    a, b, c, d = (Key(pk, name) for name in "abcd")
    store.transact([Put(a, {}), Put(b, {})])
    store.transact([Check(a, expect=1), Check(c, expect=ABSENT), Delete(b, expect=1), Put(d, {}, expect=ABSENT)])
    assert sort_keys(store.query(pk)) == ["a", "d"]


def test_deleting_what_is_absent_succeeds_without_expectation(store: JobStore, pk: str) -> None:
    store.transact([Delete(Key(pk, "a")), Delete(Key(pk, "b"), expect=ABSENT)])
    assert store.query(pk) == []


def test_query_orders_by_code_point_and_pages_both_ways(store: JobStore, pk: str) -> None:
    names = ["A", "B", "a", "a\u0000", "aa", "z", "é", "\ud7ff", "\ue000", "\U0001f600"]
    put_all(store, pk, list(reversed(names)))
    assert sort_keys(store.query(pk)) == names
    assert sort_keys(store.query(pk, limit=3)) == names[:3]
    assert sort_keys(store.query(pk, after="a", limit=2)) == names[3:5]
    assert sort_keys(store.query(pk, reverse=True, limit=2)) == names[:-3:-1]
    assert sort_keys(store.query(pk, reverse=True, after="a")) == ["B", "A"]
    assert sort_keys(store.query(pk, after="~")) == names[6:]
    assert store.query(pk + "x") == []


def test_query_takes_a_prefix(store: JobStore, pk: str) -> None:
    names = ["EVENT#1", "EVENT#2", "EVENT$", "META", "x\ud7ffy", "x\ue000", "z\U0010ffff", "z\U0010ffffa", "{"]
    put_all(store, pk, names)
    assert sort_keys(store.query(pk, prefix="EVENT#")) == names[:2]
    assert sort_keys(store.query(pk, prefix="EVENT#", after="EVENT#1")) == ["EVENT#2"]
    assert sort_keys(store.query(pk, prefix="EVENT#", reverse=True, after="EVENT#2")) == ["EVENT#1"]
    assert sort_keys(store.query(pk, prefix="EVENT#", reverse=True, after="META")) == ["EVENT#2", "EVENT#1"]
    assert sort_keys(store.query(pk, prefix="EVENT#", after="A")) == names[:2]
    assert sort_keys(store.query(pk, prefix="x\ud7ff")) == ["x\ud7ffy"]
    assert sort_keys(store.query(pk, prefix="z\U0010ffff")) == ["z\U0010ffff", "z\U0010ffffa"]


def index_keys(found: list[tuple[str, Record]]) -> list[tuple[str, str]]:
    return [(sk, record.key.sk) for sk, record in found]


def test_an_index_finds_records_between_bounds(process: Process, pk: str) -> None:
    store = process.store
    store.transact([Put(Key(pk, f"r{n}"), {"n": n}, index={"due": (pk, f"{9 - n}")}) for n in range(5)])
    process.settle()
    everything = [("5", "r4"), ("6", "r3"), ("7", "r2"), ("8", "r1"), ("9", "r0")]
    assert index_keys(store.query_index("due", pk)) == everything
    assert store.query_index("due", pk)[0][1] == Record(Key(pk, "r4"), 1, {"n": 4})
    assert index_keys(store.query_index("due", pk, limit=2)) == everything[:2]
    assert index_keys(store.query_index("due", pk, reverse=True, limit=2)) == everything[:-3:-1]
    assert index_keys(store.query_index("due", pk, after="5", before="8")) == everything[1:3]
    assert index_keys(store.query_index("due", pk, after="5", before="8", reverse=True)) == everything[2:0:-1]
    assert store.query_index("state", pk) == []
    assert store.query_index("due", pk + "x") == []


def test_index_entries_follow_their_record(process: Process, pk: str) -> None:
    store, key = process.store, Key(pk, "a")
    store.transact([Put(key, {"n": 1}, index={"due": (pk, "1"), "state": (pk, "s")})])
    store.transact([Put(key, {"n": 2}, index={"due": (pk, "2"), "pool": (pk, "p")})])
    process.settle()
    assert index_keys(store.query_index("due", pk)) == [("2", "a")]
    assert store.query_index("state", pk) == []
    assert store.query_index("pool", pk) == [("p", Record(key, 2, {"n": 2}))]
    store.transact([Put(key, {"n": 3})])
    process.settle()
    assert store.query_index("due", pk) == []
    store.transact([Put(key, {"n": 4}, index={"due": (pk, "4")})])
    store.transact([Delete(key)])
    process.settle()
    assert store.query_index("due", pk) == []


def test_an_index_partition_is_counted_up_to_a_bound(process: Process, pk: str) -> None:
    store = process.store
    store.transact([Put(Key(pk, f"r{n}"), {}, index={"due": (pk, f"{n}"), "state": (pk, "same")}) for n in range(5)])
    process.settle()
    assert [store.count_index("due", pk, most) for most in (1, 4, 5, 9)] == [1, 4, 5, 5]
    assert store.count_index("state", pk, 9) == 5
    assert store.count_index("pool", pk, 9) == 0
    store.transact([Delete(Key(pk, "r0")), Put(Key(pk, "r1"), {})])
    process.settle()
    assert store.count_index("due", pk, 9) == 3
    with pytest.raises(ValueError, match="no index"):
        store.count_index("colour", pk, 1)
    with pytest.raises(ValueError, match="limit"):
        store.count_index("due", pk, 0)


def test_records_may_share_an_index_entry(process: Process, pk: str) -> None:
    process.store.transact([Put(Key(pk, name), {}, index={"due": (pk, "1")}) for name in "cab"])
    process.settle()
    assert index_keys(process.store.query_index("due", pk)) == [("1", "a"), ("1", "b"), ("1", "c")]


def test_another_process_sees_applied_writes_by_fresh_reads(backend: Backend, pk: str) -> None:
    one, two = backend.process(), backend.process()
    for n in range(20):
        one.store.transact([Put(Key(pk, "a"), {"n": n})])
        found = two.store.get(Key(pk, "a"), fresh=True)
        assert found is not None
        assert found.body == {"n": n}


def test_a_process_sees_its_own_writes_at_once(store: JobStore, pk: str) -> None:
    for n in range(20):
        store.transact([Put(Key(pk, f"{n:02}"), {"n": n})])
        assert store.get(Key(pk, f"{n:02}")) is not None
        assert len(store.query(pk)) == n + 1


def test_of_two_writers_one_wins(backend: Backend, pk: str) -> None:
    one, two = backend.process().store, backend.process().store
    key = Key(pk, "a")
    one.transact([Put(key, {"by": 0})])
    for rev in range(1, 6):
        winner, loser = (one, two) if rev % 2 else (two, one)
        winner.transact([Put(key, {"by": rev}, expect=rev)])
        with pytest.raises(WriteConflict) as caught:
            loser.transact([Put(key, {"by": -rev}, expect=rev)])
        assert caught.value.current == {key: Record(key, rev + 1, {"by": rev})}


def test_large_transactions_and_queries(store: JobStore, pk: str) -> None:
    put_all(store, pk, [f"{n:03}" for n in range(TRANSACTION_MAX)])
    assert len(store.query(pk)) == TRANSACTION_MAX
    large = '"\\' * (RECORD_MAX // 4 - 10)
    for n in range(4):
        store.transact([Put(Key(pk, f"big{n}"), {"x": large})])
    assert [record.body["x"] == large for record in store.query(pk, prefix="big")] == [True] * 4
    assert sort_keys(store.query(pk, prefix="big", reverse=True)) == ["big3", "big2", "big1", "big0"]


@pytest.mark.parametrize(
    "body",
    [
        {"tuple": (1, 2)},
        {"set": {1}},
        {1: "key"},
        {"nan": float("nan")},
        {"inf": float("inf")},
        {"bytes": b"x"},
        {"surrogate": "\ud800"},
        {"object": object()},
        [1],
        {"x": "x" * RECORD_MAX},
    ],
    ids=["tuple", "set", "int-key", "nan", "inf", "bytes", "surrogate", "object", "list", "large"],
)
def test_bodies_that_json_would_change_are_refused(store: JobStore, pk: str, body: Any) -> None:
    with pytest.raises(ValueError, match="body"):
        store.transact([Put(Key(pk, "a"), body)])
    assert store.get(Key(pk, "a")) is None


def test_transactions_out_of_bounds_are_refused(store: JobStore, pk: str) -> None:
    wrong: dict[str, list[Operation]] = {
        "1 to 100 operations, not 0": [],
        "1 to 100 operations, not 101": [Put(Key(pk, str(n)), {}) for n in range(101)],
        "twice": [Put(Key(pk, "a"), {}), Check(Key(pk, "a"), ABSENT)],
        "no index": [Put(Key(pk, "a"), {}, index={"colour": (pk, "red")})],
        "bytes together": [
            Put(Key(pk, str(n)), {"x": "x" * (RECORD_MAX - 100)})
            for n in range(TRANSACTION_BYTES_MAX // RECORD_MAX + 1)
        ],
    }
    for message, operations in wrong.items():
        with pytest.raises(ValueError, match=message):
            store.transact(operations)
    assert store.query(pk) == []


@pytest.mark.parametrize("key", [Key("", "a"), Key("p", ""), Key("p" * 2049, "a"), Key("p", "é" * 513)])
def test_keys_out_of_bounds_are_refused(store: JobStore, key: Key) -> None:
    with pytest.raises(ValueError, match="key part"):
        store.transact([Put(key, {})])
    with pytest.raises(ValueError, match="key part"):
        store.transact([Put(Key("p", "a"), {}, index={"due": key})])


def test_reads_out_of_bounds_are_refused(store: JobStore, pk: str) -> None:
    with pytest.raises(ValueError, match="no index"):
        store.query_index("colour", pk)
    with pytest.raises(ValueError, match="limit"):
        store.query_index("due", pk, limit=0)
    with pytest.raises(ValueError, match="limit"):
        store.query(pk, limit=0)


def create(store: JobStore, key: Key, owner: str) -> str:
    """What services do: repeat until the outcome is known, and take one's own record for success."""
    for _ in range(5):
        try:
            store.transact([Put(key, {"owner": owner}, expect=ABSENT)])
        except Unavailable:
            continue
        except WriteConflict as conflict:
            found = conflict.current[key]
            return "mine" if found is not None and found.body == {"owner": owner} else "theirs"
        return "mine"
    raise AssertionError("not reached: the script has fewer faults")


@pytest.mark.parametrize(
    "script",
    [
        ["transact:before"],
        ["transact:reply_lost"],
        ["transact:before", "transact:reply_lost", "transact:reply_lost"],
    ],
)
def test_a_create_is_repeated_safely(store: JobStore, pk: str, script: list[str]) -> None:
    key = Key(pk, "a")
    assert create(FaultyStore(store, scripted(*script)), key, "me") == "mine"
    assert create(FaultyStore(store, scripted(*script)), key, "you") == "theirs"
    assert store.get(key) == Record(key, 1, {"owner": "me"})


def test_a_move_is_repeated_safely_against_rivals_and_stale_reads(process: Process, pk: str) -> None:
    key = Key(pk, "a")
    faulty = FaultyStore(
        process.store, scripted("transact:conflict", "get:stale", "query_index:stale", "transact:reply_lost")
    )
    faulty.transact([Put(key, {"n": 0}, index={"due": (pk, "0")})])
    process.settle()
    assert index_keys(faulty.query_index("due", pk)) == [("0", "a")]
    with pytest.raises(WriteConflict) as caught:
        faulty.transact([Put(key, {"n": 1}, expect=1)])
    assert caught.value.current == {key: Record(key, 2, {"n": 0})}
    faulty.transact([Put(key, {"n": 1}, expect=2, index={"due": (pk, "1")})])
    process.settle()
    assert faulty.get(key) == Record(key, 2, {"n": 0})
    assert index_keys(faulty.query_index("due", pk)) == [("0", "a")]
    with pytest.raises(Unavailable):
        faulty.transact([Put(key, {"n": 2}, expect=3)])
    with pytest.raises(WriteConflict) as caught:
        faulty.transact([Put(key, {"n": 2}, expect=3)])
    assert caught.value.current == {key: Record(key, 4, {"n": 2})}
    assert faulty.get(key, fresh=True) == Record(key, 4, {"n": 2})
