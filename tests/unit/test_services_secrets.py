"""Secrets: sealed at rest, shown by nothing, each read written down before it happens."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from random import Random

import pytest

from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.errors import InternalError, InvalidRequest, NotFound
from hanzo_compute.model import bounds, keys
from hanzo_compute.ports import Put
from hanzo_compute.security import envelope
from hanzo_compute.services import audit, reconcile, secrets
from tests.support.rows import rows_in
from tests.support.stepped import Platform

VALUE = b"correct horse battery staple \x00\xff"
DAY = 24 * 3600 * 1000


@pytest.fixture
def platform() -> Platform:
    made = Platform()
    secrets.put(made.ctx, "acme", "TOKEN", VALUE)
    return made


def names(platform: Platform, tenant: str = "acme") -> list[str]:
    return [each["name"] for each in secrets.secrets(platform.ctx, tenant, cursor="", limit=100).items]


def test_a_secret_is_read_by_its_tenant_alone(platform: Platform) -> None:
    assert secrets.value(platform.ctx, "acme", "TOKEN") == VALUE
    assert secrets.value(platform.ctx, "other", "TOKEN") is None
    assert (names(platform), names(platform, "other")) == (["TOKEN"], [])


def test_nothing_in_the_store_tells_it(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets.put(platform.ctx, "acme", "LONG", VALUE * 100)
    text = "".join(row.body for row in rows_in(platform.commits.database)) + caplog.text
    for part in ("horse", VALUE[:12].hex(), "Y29ycmVjdCBo"):
        assert part not in text
    assert "horse" not in json.dumps(secrets.secrets(platform.ctx, "acme", cursor="", limit=9).items)


def test_versions_count(platform: Platform) -> None:
    platform.clock.advance(1000)
    again = secrets.put(platform.ctx, "acme", "TOKEN", b"new")
    assert (again["version"], again["created_at"] < again["updated_at"]) == (2, True)
    assert secrets.value(platform.ctx, "acme", "TOKEN") == b"new"
    secrets.remove(platform.ctx, "acme", "TOKEN")
    assert secrets.value(platform.ctx, "acme", "TOKEN") is None
    for name in ("TOKEN", "no name", "#"):
        with pytest.raises(NotFound):
            secrets.remove(platform.ctx, "acme", name)


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("1A", b"x", "name"),
        ("A B", b"x", "name"),
        ("", b"x", "name"),
        ("A#B", b"x", "name"),
        ("A" * 65, b"x", "name"),
        ("A\n", b"x", "name"),
        ("A", b"", "value"),
        ("A", bytes(bounds.SECRET_VALUE_MAX + 1), "value"),
    ],
)
def test_a_bad_secret_is_refused(platform: Platform, name: str, value: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        secrets.put(platform.ctx, "acme", name, value)
    assert refused.value.fields[0].field == field


def test_the_largest_fits_and_there_are_at_most_so_many(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets.put(platform.ctx, "acme", "BIG", b"\xff" * bounds.SECRET_VALUE_MAX)
    monkeypatch.setattr(bounds, "TENANT_SECRETS_MAX", 2)
    with pytest.raises(InvalidRequest, match="which is the most"):
        secrets.put(platform.ctx, "acme", "MORE", b"x")
    assert secrets.put(platform.ctx, "acme", "BIG", b"x")["version"] == 2
    assert secrets.put(platform.ctx, "other", "MORE", b"x")["version"] == 1


@pytest.mark.parametrize("how", ["tenant", "name", "version", "sealed", "key", "vault"])
def test_what_was_moved_or_altered_does_not_open(platform: Platform, how: str) -> None:
    record = platform.store.get(keys.secret("acme", "TOKEN"))
    assert record is not None
    at, body, ctx = record.key, dict(record.body), platform.ctx
    if how == "tenant":
        at = keys.secret("other", "TOKEN")
    elif how == "name":
        at = keys.secret("acme", "OTHER")
    elif how == "version":
        body["version"] = 2
    elif how == "vault":
        ctx = replace(ctx, vault=MemoryVault(Random(2)))
    else:
        body[how] = body[how][:20] + ("A" if body[how][20] != "A" else "B") + body[how][21:]
    platform.store.transact([Put(at, body)])
    _, tenant, name = at.pk.split("#")
    with pytest.raises(InternalError, match="does not open") as refused:
        secrets.value(ctx, tenant, name)
    assert "horse" not in str(refused.value)


def test_the_same_value_is_sealed_in_another_way_each_time(platform: Platform) -> None:
    context = {"tenant": "acme", "secret": "X", "version": "1"}
    one, two = (envelope.seal(platform.ctx.vault, context, VALUE) for _ in range(2))
    assert one["sealed"] != two["sealed"]
    assert [envelope.unseal(platform.ctx.vault, context, each) for each in (one, two)] == [VALUE] * 2


def test_reads_are_listed_newest_first_by_tenant_and_secret(platform: Platform) -> None:
    for number in range(5):
        platform.clock.advance(10)
        name = "A" if number % 2 else "B"
        secrets.record_read(platform.ctx, "acme", f"f@{number}", name, f"c-{number}")
    secrets.record_read(platform.ctx, "acme", "f@4", "B", "c-4")  # the answer was lost, and it is the same read
    page = secrets.reads(platform.ctx, "acme", secret=None, cursor="", limit=3)
    assert [each["function"] for each in page.items] == ["f@4", "f@3", "f@2"]
    assert page.items[0] == {"at": page.items[0]["at"], "function": "f@4", "secret": "B", "call": "c-4"}
    rest = secrets.reads(platform.ctx, "acme", secret=None, cursor=page.next_cursor or "", limit=3)
    assert ([each["function"] for each in rest.items], rest.next_cursor) == (["f@1", "f@0"], None)
    only = secrets.reads(platform.ctx, "acme", secret="A", cursor="", limit=9)
    assert [each["function"] for each in only.items] == ["f@3", "f@1"]
    assert secrets.reads(platform.ctx, "other", secret=None, cursor="", limit=9).items == []
    with pytest.raises(InvalidRequest):
        secrets.reads(platform.ctx, "acme", secret=None, cursor="eA", limit=9)


def test_records_of_reads_go_after_90_days_whatever_the_clock_does(platform: Platform) -> None:
    reconcile.reconcile(platform.ctx)
    secrets.record_read(platform.ctx, "acme", "f@1", "TOKEN", "c-1")

    def there() -> int:
        return len(secrets.reads(platform.ctx, "acme", secret=None, cursor="", limit=9).items)

    platform.clock.now_ms_value -= 2 * DAY
    reconcile.reconcile(platform.ctx)
    for _ in range(89):
        platform.clock.now_ms_value += DAY
        reconcile.reconcile(platform.ctx)
        assert there() == 1
    for _ in range(4):
        platform.clock.now_ms_value += DAY
        reconcile.reconcile(platform.ctx)
    assert there() == 0


def test_a_sound_store_has_no_findings(platform: Platform) -> None:
    secrets.record_read(platform.ctx, "acme", "f@1", "TOKEN", "c-1")
    rows = rows_in(platform.commits.database)
    assert list(audit.findings(rows, lambda _: True, platform.clock.now_ms(), platform.ctx.policy)) == []
    assert [row.key for row in rows if audit.expected_entries(row) != audit._stated_entries(row)] == []
    secret = next(row for row in rows if row.key.pk.startswith("SECRET#"))
    (finding,) = audit.findings([replace(secret, body="[]")], lambda _: True, 0, platform.ctx.policy)
    assert (finding.check, finding.operations) == ("secret", ())
