"""Key-value sessions: what a call sees, and that it takes effect as a whole on what it saw, or not at all."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from hanzo_compute.errors import Conflict, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.ports import ABSENT, Check, GuestRefusal, Put, Status, WriteConflict
from hanzo_compute.services import audit, entries, kv, reconcile
from tests.support.faults import FaultyStore, scripted
from tests.support.rows import rows_in
from tests.support.stepped import Platform

K, L = b"k", b"\x00\xff/#"


@pytest.fixture
def platform() -> Platform:
    return Platform()


def session(platform: Platform, *, fresh: bool = False) -> kv.Session:
    return kv.Session(platform.ctx, "acme", "f", fresh=fresh)


def stored(platform: Platform, key: bytes = K) -> tuple[bytes, int] | None:
    return session(platform).get(key)


def put(platform: Platform, value: bytes, key: bytes = K) -> None:
    made = session(platform)
    assert made.put(key, value) is Status.OK
    made.commit()


def test_a_call_sees_its_own_writes_and_others_only_its_commit(platform: Platform) -> None:
    mine = session(platform)
    assert mine.get(K) is None
    assert mine.put(K, b"1", 0) is Status.OK
    assert mine.get(K) == (b"1", 1)
    assert mine.put(K, b"2", 1) is Status.OK
    assert (mine.get(K), mine.writes) == ((b"2", 2), True)
    assert stored(platform) is None
    mine.commit()
    assert stored(platform) == (b"2", 2)


def test_keys_and_values_are_any_bytes(platform: Platform) -> None:
    for key, value in ((L, b""), (b"\xff" * bounds.KV_KEY_MAX, bytes(range(256)) * 1024), (b"a", b"\x00")):
        put(platform, value, key)
        assert stored(platform, key) == (value, 1)


def test_tenants_and_functions_have_entries_of_their_own(platform: Platform) -> None:
    put(platform, b"mine")
    for tenant, name in (("other", "f"), ("acme", "g"), ("acme", "f-g")):
        assert kv.Session(platform.ctx, tenant, name).get(K) is None


@pytest.mark.parametrize(
    ("expect", "there", "absent"),
    [(-1, 0, 0), (0, -4, 0), (1, -4, -4), (2, 0, -4), (3, -4, -4)],
)
def test_what_is_expected_is_compared_at_once(platform: Platform, expect: int, there: int, absent: int) -> None:
    for value in (b"1", b"2"):
        put(platform, value)
    for method in ("put", "delete"):
        args = (b"x",) if method == "put" else ()
        assert getattr(session(platform), method)(K, *args, expect) == there
        assert getattr(session(platform), method)(L, *args, expect) == absent


def test_a_version_never_comes_again_soon(platform: Platform) -> None:
    put(platform, b"1")
    gone = session(platform)
    assert gone.delete(K, 1) is Status.OK
    assert (gone.get(K), gone.delete(K), gone.put(K, b"x", 1)) == (None, Status.OK, Status.CONFLICT)
    late = session(platform)
    assert late.get(K) == (b"1", 1)
    gone.commit()
    assert stored(platform) is None
    put(platform, b"2")
    assert stored(platform) == (b"2", 2)
    assert late.put(K, b"late", 1) is Status.OK
    with pytest.raises(Conflict):  # though the record is there again, with another value
        late.commit()


def test_what_is_left_of_a_removed_entry_goes_after_a_day(platform: Platform) -> None:
    put(platform, b"1")
    gone = session(platform)
    gone.delete(K)
    gone.commit()
    at = keys.kv("acme", "f", K)
    platform.clock.advance(platform.ctx.policy.idempotency_ms - 1)
    assert "expired_forgotten" not in reconcile.reconcile(platform.ctx)
    assert platform.store.get(at) is not None
    platform.clock.advance(100)
    found = [reconcile.reconcile(platform.ctx) for _ in range(3)]
    platform.clock.advance(platform.ctx.policy.idempotency_ms + 1)
    found += [reconcile.reconcile(platform.ctx) for _ in range(2)]
    assert sum(each.get("expired_forgotten", 0) for each in found) == 1
    assert platform.store.get(at) is None
    put(platform, b"2")
    assert stored(platform) == (b"2", 1)


def test_every_key_that_was_looked_at_is_checked(platform: Platform) -> None:
    put(platform, b"1")
    mine = session(platform)
    mine.get(K)
    mine.get(L)
    mine.put(b"new", b"")
    mine.put(b"back", b"")
    mine.delete(b"back")
    assert {type(each) for each in mine.operations()} == {Check, Put}
    checks = {each.key.sk: each.expect for each in mine.operations() if isinstance(each, Check)}
    assert checks == {K.hex(): 1, L.hex(): ABSENT, b"back".hex(): ABSENT}


def test_write_skew_is_refused(platform: Platform) -> None:
    """Each reads what the other writes: one after the other, the second would have seen the first."""
    one, two = session(platform), session(platform)
    assert (one.get(K), two.get(L)) == (None, None)
    one.put(L, b"one")
    two.put(K, b"two")
    one.commit()
    with pytest.raises(Conflict):
        two.commit()
    assert (stored(platform, K), stored(platform, L)) == (None, (b"one", 1))


def test_the_outcome_and_the_entries_are_one(platform: Platform) -> None:
    outcome = keys.Key("TARIFF#outcome", "-")
    put(platform, b"1")
    late = session(platform)
    late.put(K, b"late")
    put(platform, b"2")
    with pytest.raises(Conflict):
        late.commit([Put(outcome, {}, expect=ABSENT)])
    assert platform.store.get(outcome) is None
    again = session(platform, fresh=True)
    again.put(K, b"again")
    again.commit([Put(outcome, {}, expect=ABSENT)])
    twice = session(platform)
    twice.put(K, b"twice")
    with pytest.raises(WriteConflict):  # not of the entries: the caller's own affair
        twice.commit([Put(outcome, {}, expect=ABSENT)])
    assert stored(platform) == (b"again", 3)


def test_a_stale_read_refuses_nothing_and_commits_nothing(platform: Platform) -> None:
    put(platform, b"1")
    put(platform, b"2")
    store = FaultyStore(platform.store, scripted("get:stale"))
    ctx = replace(platform.ctx, store=store)
    store.transact([Put(keys.kv("acme", "f", K), {"value": "Mw==", "version": 3, "at_ms": 0})])
    mine = kv.Session(ctx, "acme", "f")
    assert mine.put(K, b"4", 3) is Status.OK  # the first read showed version 2
    mine.commit()
    assert stored(platform) == (b"4", 4)


def test_bounds(platform: Platform) -> None:
    mine = session(platform)
    for key in (b"", b"x" * 513):
        with pytest.raises(GuestRefusal) as refused:
            mine.get(key)
        assert refused.value.status is Status.INVALID
    with pytest.raises(GuestRefusal) as refused:
        mine.put(K, bytes(bounds.KV_VALUE_MAX + 1))
    assert refused.value.status is Status.INVALID
    with pytest.raises(GuestRefusal) as refused:
        mine.put(K, b"", -2)
    assert refused.value.status is Status.INVALID
    full = [b"v%d" % n for n in range(8)]
    for key in full:
        mine.put(key, bytes(bounds.KV_VALUE_MAX))
    with pytest.raises(GuestRefusal) as refused:
        mine.put(K, b"x")
    assert refused.value.status is Status.LIMIT
    mine.put(full[0], b"smaller")
    mine.put(K, b"x")
    mine.delete(full[1])
    for number in range(bounds.KV_TOUCHED_MAX - 9):
        mine.get(b"n%d" % number)
    with pytest.raises(GuestRefusal) as refused:
        mine.get(b"one more")
    assert refused.value.status is Status.LIMIT
    assert mine.get(K) == (b"x", 1)
    mine.commit()
    assert stored(platform, full[0]) == (b"smaller", 2)


def test_the_largest_commit_fits_beside_an_outcome(platform: Platform) -> None:
    mine = session(platform)
    for number in range(8):
        mine.put(b"%d" % number, b"\xff" * bounds.KV_VALUE_MAX)
    for number in range(bounds.KV_TOUCHED_MAX - 8):
        mine.get(b"n%d" % number)
    others = [Put(keys.Key("TARIFF#x", str(n)), {"x": "x" * 390_000}) for n in range(3)]
    mine.commit(others)
    assert stored(platform, b"7") == (b"\xff" * bounds.KV_VALUE_MAX, 1)


def test_random_histories_are_those_of_some_order(platform: Platform) -> None:
    """What interleaved calls that committed have read is what a run one after the other, in that order, reads."""
    random = Random(7)
    model: dict[bytes, bytes] = {}
    names = [b"%d" % n for n in range(4)]
    committed = conflicts = 0
    for _ in range(400):
        calls = []
        for _ in range(3):
            call, steps = session(platform), []
            for _ in range(random.randint(1, 5)):
                key, kind = random.choice(names), random.choice(["get", "put", "delete"])
                if kind == "get":
                    steps.append((kind, key, b"", call.get(key)))
                elif kind == "put":
                    value = b"%d" % random.randrange(1000)
                    steps.append((kind, key, value, call.put(key, value)))
                else:
                    steps.append((kind, key, b"", call.delete(key)))
            calls.append((call, steps))
        random.shuffle(calls)
        for call, steps in calls:
            try:
                call.commit()
            except Conflict:
                conflicts += 1
                continue
            committed += 1
            for kind, key, value, saw in steps:
                if kind == "get":
                    assert (None if saw is None else saw[0]) == model.get(key)
                elif kind == "put":
                    model[key] = value
                else:
                    model.pop(key, None)
    assert committed > 400
    assert conflicts > 100
    for key in names:
        found = stored(platform, key)
        assert (None if found is None else found[0]) == model.get(key)


def test_owners_read_write_list_and_remove(platform: Platform) -> None:
    ctx = platform.ctx
    put(platform, b"\xff", L)
    for number in range(5):
        put(platform, b"v", b"n%d" % number)
    gone = session(platform)
    gone.delete(b"n1")
    gone.commit()
    shown = entries.get(ctx, "acme", "f", L)
    assert (shown["key"], shown["value_base64"], shown["version"]) == (None, "/w==", 1)
    assert entries.decode_key(shown["key_base64url"], "base64url") == L
    items, cursor = [], ""
    while True:
        page = entries.entries(ctx, "acme", "f", prefix=b"n", cursor=cursor, limit=2)
        items, cursor = items + page.items, page.next_cursor or ""
        if not cursor:
            break
    assert [each["key"] for each in items] == ["n0", "n2", "n3", "n4"]
    with pytest.raises(NotFound, match="no function"):
        entries.put(ctx, "acme", "f", K, b"", -1)
    entries.remove(ctx, "acme", "f", b"n0", 1)
    for expect, error in ((-1, NotFound), (5, NotFound)):
        with pytest.raises(error):
            entries.remove(ctx, "acme", "f", b"n0", expect)
    with pytest.raises(Conflict, match="version 1, not 7"):
        entries.remove(ctx, "acme", "f", b"n2", 7)
    with pytest.raises(InvalidRequest):
        entries.remove(ctx, "acme", "f", b"n2", -2)
    with pytest.raises(NotFound):
        entries.get(ctx, "acme", "F#", K)
    with pytest.raises(NotFound):
        entries.get(ctx, "other", "f", b"n2")


def test_a_listing_reads_no_more_than_it_must(platform: Platform) -> None:
    for number in range(40):
        put(platform, bytes(bounds.KV_VALUE_MAX), b"%02d" % number)
    page = entries.entries(platform.ctx, "acme", "f", prefix=b"", cursor="", limit=100)
    assert 16 <= len(page.items) < 40
    assert page.next_cursor
    rest = entries.entries(platform.ctx, "acme", "f", prefix=b"", cursor=page.next_cursor, limit=100)
    assert rest.items[0]["key"] == f"{len(page.items):02d}"


def test_a_sound_store_has_no_findings(platform: Platform) -> None:
    put(platform, b"1")
    put(platform, b"1", L)
    gone = session(platform)
    gone.delete(K)
    gone.commit()
    rows = rows_in(platform.commits.database)
    kinds = {row.key.pk.partition("#")[0] for row in rows}
    assert "KV" in kinds
    assert list(audit.findings(rows, lambda _: True, platform.clock.now_ms(), platform.ctx.policy)) == []
    assert [row.key for row in rows if audit.expected_entries(row) != audit._stated_entries(row)] == []
    broken = replace(next(row for row in rows if row.key.sk == L.hex()), body="{}")
    (finding,) = audit.findings([broken], lambda _: True, 0, platform.ctx.policy)
    assert (finding.check, finding.operations) == ("kv", ())


def test_a_lost_reply_says_that_nothing_is_known(platform: Platform) -> None:
    store = FaultyStore(platform.store, scripted("transact:reply_lost"))
    mine = kv.Session(replace(platform.ctx, store=store), "acme", "f")
    mine.put(K, b"1", 0)
    with pytest.raises(Unavailable):
        mine.commit()
    assert stored(platform) == (b"1", 1)
