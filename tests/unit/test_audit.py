"""The rules of a repair, on rows: what services write has no findings, and each defect has one that cures it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hanzo_compute.config import Policy
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.keys import Key
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State
from hanzo_compute.model.stored import Row
from hanzo_compute.ports import Delete, Put
from hanzo_compute.services import audit, records
from hanzo_compute.services.audit import Finding
from hanzo_compute.services.cancel import cancel
from hanzo_compute.services.reconcile import reconcile
from hanzo_compute.services.submit import submit
from tests.support.rows import rows_in
from tests.support.stepped import Platform, spec

NOW = 1_700_000_000_000
POLICY = Policy()
ID = "j-01HF7YAT00000000000000000A"
JOB = Job(ID, "acme", State.QUEUED, "wasm", NOW, NOW, NOW + 1000, 60, "digest", events=1)


def rows_of(job: Job, *others: Row, with_spec: bool = True) -> list[Row]:
    found = [Row(keys.job(ID), 3, json.dumps(job.record()))]
    if with_spec:
        found.append(Row(keys.spec(ID), 1, "{}"))
    return sorted([*found, *others], key=lambda row: row.key)


def findings(rows: list[Row], now: int = NOW) -> list[Finding]:
    known = {row.key.pk[4:] for row in rows if row.key.pk.startswith("JOB#") and row.key.sk == "META"}
    return list(audit.findings(rows, known.__contains__, now, POLICY))


DEFECTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("place", {"due_ms": None}, {"due_ms": NOW}),
    ("place", {"due_ms": NOW + 10**9}, {"due_ms": NOW}),
    ("closed", {"closed": True}, {"closed": False}),
    ("lease", {"state": State.RUNNING, "due_ms": None, "lease_until_ms": NOW + 5}, {"due_ms": NOW}),
    ("lease", {"state": State.RUNNING, "due_ms": NOW + 10**7, "lease_until_ms": NOW}, {"due_ms": NOW}),
    ("too late", {"state": State.RUNNING, "lease_until_ms": NOW + 10**9}, {"lease_until_ms": NOW, "due_ms": NOW}),
    ("next attempt", {"state": State.RETRYING, "due_ms": None, "not_before_ms": NOW}, {"due_ms": NOW}),
    (
        "too far",
        {"state": State.RETRYING, "not_before_ms": NOW + 10**9, "due_ms": NOW + 10**9},
        {"not_before_ms": NOW, "due_ms": NOW},
    ),
    ("nowhere", {"state": State.PLACED, "pool": "x"}, {"state": State.QUEUED, "pool": None, "due_ms": NOW}),
    ("nowhere", {"state": State.PLACED, "placed_ms": NOW}, {"state": State.QUEUED, "placed_ms": None, "due_ms": NOW}),
    ("deadline", {"state": State.PLACED, "pool": "local", "placed_ms": NOW}, {"due_ms": None}),
    (
        "deadline",
        {"state": State.PLACED, "pool": "local", "placed_ms": NOW, "deadline_ms": NOW + 7, "due_ms": None},
        {"due_ms": NOW + 7},
    ),
    ("close it", {"state": State.FAILED, "due_ms": None}, {"due_ms": NOW}),
    ("at rest", {"state": State.FAILED, "closed": True}, {"due_ms": None}),
]


@pytest.mark.parametrize(("says", "broken", "mended"), DEFECTS)
def test_a_job_that_would_not_move_is_corrected_once(says: str, broken: dict[str, Any], mended: dict[str, Any]) -> None:
    job = replace(JOB, **broken)
    (finding,) = findings(rows_of(job))
    assert says in finding.found
    (put,) = finding.operations
    assert isinstance(put, Put)
    after = Job.from_record(put.body)
    assert after == replace(job, **mended)
    assert (put.expect, put.index) == (3, records.index(after))
    assert findings(rows_of(after)) == []


def test_counters_that_lag_behind_are_put_forward() -> None:
    """Else the next event or attempt would be written where one is, for ever in vain."""
    others = [Row(keys.event(ID, 4), 1, "{}"), Row(keys.attempt(ID, 2), 1, "{}")]
    (finding,) = findings(rows_of(JOB, *others))
    (put,) = finding.operations
    assert isinstance(put, Put)
    after = Job.from_record(put.body)
    assert (after.events, after.attempt) == (4, 2)
    assert findings(rows_of(after, *others)) == []


def test_a_job_without_its_spec_must_end() -> None:
    (finding,) = findings(rows_of(JOB, with_spec=False))
    assert finding.dead
    assert findings(rows_of(replace(JOB, state=State.DEAD, closed=True, due_ms=None), with_spec=False)) == []


@pytest.mark.parametrize("body", ["", "[]", "{", '{"id": 3}', json.dumps({**JOB.record(), "created_ms": "then"})])
def test_a_job_that_cannot_be_read_is_left(body: str) -> None:
    (finding,) = findings([Row(keys.job(ID), 1, body), Row(keys.spec(ID), 1, "{}")])
    assert (finding.operations, finding.dead) == ((), False)
    assert "restore" in finding.remedy


def idempotency(**changes: Any) -> str:
    return json.dumps({"job": ID, "digest": "d", "expires_ms": NOW + 1, **changes})


REMOVED: list[tuple[str, Key, str]] = [
    ("no job", keys.spec("j-gone"), "{}"),
    ("no job", keys.attempt("j-gone", 1), "{}"),
    ("no job", keys.log("j-gone", 1, 1), "{}"),
    ("no job", keys.label("acme", "a", "b", "j-gone"), "{}"),
    ("no job", keys.idempotency("acme", "k"), idempotency(job="j-gone")),
    ("expired", keys.idempotency("acme", "k"), idempotency(expires_ms=NOW)),
    ("twice", Key(keys.idempotency("acme", "k").pk, "x"), idempotency()),
    ("read", keys.idempotency("acme", "k"), "?"),
    ("no job", keys.outbox(1, f"{NOW:015d}#m"), '{"queue": "dispatch", "not_before_ms": 1, "message": {"job": "x"}}'),
    ("sent", keys.outbox(1, f"{NOW:015d}#m"), json.dumps({"queue": "odd", "message": {"job": ID}})),
    ("find", keys.outbox(1, "soon#m"), json.dumps({"queue": "dispatch", "not_before_ms": 1, "message": {"job": ID}})),
    ("find", keys.outbox(9, f"{NOW:015d}#m"), "{}"),
    ("read", keys.outbox(1, f"{NOW:015d}#m"), json.dumps({"queue": "dispatch", "not_before_ms": 1, "message": 3})),
]


@pytest.mark.parametrize(("says", "key", "body"), REMOVED)
def test_what_belongs_to_nothing_is_removed(says: str, key: Key, body: str) -> None:
    (finding,) = findings(rows_of(JOB, Row(key, 1, body)))
    assert says in finding.found
    assert finding.operations == (Delete(key),)


def test_what_belongs_to_a_job_stays() -> None:
    sent = {"queue": "dispatch", "not_before_ms": 1, "message": {"job": ID, "attempt": 0}}
    kept = [
        Row(keys.log(ID, 1, 1), 1, "{}"),
        Row(keys.label("acme", "a", "b", ID), 1, "{}"),
        Row(keys.idempotency("acme", "k"), 1, idempotency()),
        Row(keys.outbox(1, f"{NOW:015d}#m"), 1, json.dumps(sent)),
        Row(keys.credential("k"), 1, "{}"),
        Row(Key("LATER#kind", "of record"), 1, "?"),
    ]
    assert findings(rows_of(JOB, *kept)) == []


def test_index_entries_are_those_of_the_content() -> None:
    assert audit.expected_entries(rows_of(JOB)[0]) == records.index(JOB)
    assert audit.expected_entries(Row(keys.idempotency("acme", "k"), 1, idempotency())) == {
        "due": keys.due_entry(NOW + 1, "IDEMPOTENCY#acme#k")
    }
    assert audit.expected_entries(Row(keys.spec(ID), 1, "{}")) == {}
    stated = '{"due": ["DUE#1", "5#x"]}'
    for key, body in ((keys.job(ID), "?"), (Key("LATER#kind", "-"), "{}")):
        assert audit.expected_entries(Row(key, 1, body, stated)) == {"due": ("DUE#1", "5#x")}
        assert audit.expected_entries(Row(key, 1, body)) == {}
        for odd in ("?", '{"due": 3}', '{"due": ["x"]}', '{"due": [1, 2]}'):
            assert audit.expected_entries(Row(key, 1, body, odd)) is None


@pytest.mark.parametrize(
    ("message", "says"), [({"job": ID}, None), ({"job": "x"}, "no job"), ({}, "read"), (None, "read")]
)
def test_messages(message: Any, says: str | None) -> None:
    wrong = audit.message_fault(message, {ID}.__contains__)
    assert (wrong is None) if says is None else (says in str(wrong))


def lapsed(platform: Platform) -> None:
    platform.running()
    platform.clock.advance(POLICY.lease_ms + 1)
    reconcile(platform.ctx)


WAYS: list[Callable[[Platform], object]] = [
    lambda platform: platform.submitted(labels={"a": "b"}),
    lambda platform: platform.placed(),
    lambda platform: platform.running(),
    lambda platform: platform.end(platform.running()),
    lambda platform: platform.end(platform.running(retry={"max_attempts": 3, "backoff_s": 900}), Category.EXIT),
    lambda platform: submit(platform.ctx, "acme", spec(), idempotency_key="key"),
    lambda platform: cancel(platform.ctx, "acme", platform.placed()),
    lambda platform: platform.placed(deadline=format_time(platform.clock.now_ms() + 86_400_000)),
    lapsed,
]


@pytest.mark.parametrize("way", WAYS)
def test_what_services_write_has_no_findings(way: Callable[[Platform], object]) -> None:
    platform = Platform()
    way(platform)
    rows = rows_in(platform.commits.database)
    known = {row.key.pk[4:] for row in rows if row.key.sk == "META"}
    assert known
    assert list(audit.findings(rows, known.__contains__, platform.clock.now_ms(), POLICY)) == []
    for row in rows:
        expected = audit.expected_entries(row)
        assert expected is not None
        assert json.loads(row.entries or "") == {name: list(entry) for name, entry in expected.items()}
