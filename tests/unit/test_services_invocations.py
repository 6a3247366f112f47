"""Invocations: written in batches, each once, billed by the tariff, lost only with their process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.errors import InternalError, InvalidSpec, NotFound, NotSupported, PermissionDenied, Unavailable
from hanzo_compute.model import invocation as forms
from hanzo_compute.model import keys, statement, tariff
from hanzo_compute.model.outcome import Category, Output, Usage
from hanzo_compute.model.spec import Resources
from hanzo_compute.model.stored import Row
from hanzo_compute.ports import RECORD_MAX, Delete, Operation, Put, Record, Send
from hanzo_compute.services import audit, audit_batches, batches, log, pricing
from hanzo_compute.services.batches import SPAN_MS
from hanzo_compute.services.invocations import FLUSH_MS, HELD_MAX, PROMPT, Batcher, Invocation
from hanzo_compute.transparency import merkle
from tests.support.faults import Fault, FaultyStore, scripted
from tests.support.invocations import flushed, invocation, outcome, receipt_of
from tests.support.receipts import check
from tests.support.rows import rows_in
from tests.support.stepped import Platform


def records(platform: Platform, prefix: str, tenant: str = "acme") -> list[Record]:
    found = []
    for pk in sorted(platform.commits.database.partitions):
        if pk.startswith(f"{keys.BATCH}{tenant}#"):
            found += platform.store.query(pk, prefix=prefix)
    return found


def rows_of(platform: Platform) -> list[list[Any]]:
    return [row for record in records(platform, keys.STATEMENTS) for row in record.body["rows"]]


def test_a_batch_is_one_leaf_and_one_signature_for_all() -> None:
    platform = Platform()
    ids = flushed(platform, 7)
    (leaf,), (batch,) = records(platform, keys.LEAF), records(platform, keys.STATEMENTS)
    assert (leaf.body["index"], log.checkpoint(platform.ctx)["size"]) == (0, 1)
    assert [row[1] for row in batch.body["rows"]] == ids == sorted(ids)
    assert batch.body["leaf"]["body"]["invocations"] == 7
    signatures = {receipt_of(platform, each)["signature"] for each in ids}
    assert signatures == {batch.body["signature"]}
    for place, each in enumerate(ids):
        receipt = receipt_of(platform, each)
        proven = check(receipt, platform, job=each)
        assert (proven.job, proven.tenant, proven.state, proven.billed) == (each, "acme", "succeeded", proven.units)
        assert receipt["batch"]["proof"]["index"] == place


def test_bills_are_the_tariffs_and_the_total_is_their_sum() -> None:
    platform = Platform()
    batcher = Batcher("local")
    for wall in (0, 1, 12, 999):
        usage = Usage(wall_ms=wall, memory_mib_ms=wall * 64)
        batcher.add(invocation(platform.ctx, outcome=outcome(usage=usage)))
    batcher.flush(platform.ctx)
    # 200 + wall * 10 + wall * 64 / 1024000 * 16667, each rounded up once.
    assert sorted(int(row[5]) for row in rows_of(platform)) == [200, 212, 333, 11231]
    (batch,) = records(platform, keys.STATEMENTS)
    assert batch.body["header"]["price"] == {"token": "credit", "units": str(200 + 212 + 333 + 11231)}


def test_an_invocation_costs_at_most_what_its_limits_cost() -> None:
    platform = Platform()
    terms = pricing.terms_of_call(platform.ctx, "wasm", "fast", Resources(timeout_s=1, memory_mib=16))
    ids = flushed(platform, 1, terms=terms, outcome=outcome(usage=Usage(wall_ms=10**6, memory_mib_ms=10**9)))
    assert check(receipt_of(platform, ids[0]), platform).units == terms.most == 10461


def test_what_cannot_be_priced_is_refused_before_it_runs() -> None:
    platform = Platform()
    with pytest.raises(NotSupported, match="no price for wasi jobs"):
        pricing.terms_of_call(platform.ctx, "wasi", "fast", Resources())
    with pytest.raises(InvalidSpec, match="fuel"):
        pricing.terms_of_call(platform.ctx, "wasm", "deterministic", Resources())


def test_fuel_that_the_runtime_lost_costs_the_most() -> None:
    platform = Platform()
    terms = pricing.terms_of_call(platform.ctx, "wasm", "deterministic", Resources(fuel=10**9))
    lost = outcome(category=Category.TRAP, exit_code=None, trap="stack overflow", usage=Usage(wall_ms=3))
    ids = flushed(platform, 1, terms=terms, outcome=lost)
    receipt = receipt_of(platform, ids[0])
    assert "fuel" not in receipt["statement"]["usage"]
    assert (check(receipt, platform).units, check(receipt, platform).state) == (25_200, "failed")


def test_what_the_platform_failed_to_run_has_no_bill() -> None:
    platform = Platform()
    batcher = Batcher("local")
    batcher.add(invocation(platform.ctx, outcome=outcome(category=Category.PLATFORM, exit_code=None)))
    assert not batcher.due(platform.clock.now_ms())
    assert batcher.flush(platform.ctx) == []


@pytest.mark.parametrize("odd", ["", "j-01HF7YAT00000000000000000A", "i-1", "i-81HF7YAT00000000000000000A", "i-\n"])
def test_an_id_that_is_none(odd: str) -> None:
    platform = Platform()
    with pytest.raises(ValueError, match="ULID"):
        Batcher("local").add(replace(invocation(platform.ctx), id=odd))
    with pytest.raises(NotFound):
        batches.receipt(platform.ctx, "acme", odd)
    assert not batches.expected(platform.ctx, odd)


class TestDue:
    """A flush a second, or when a batch is full; and until a checkpoint covers what was written."""

    def test_nothing_waits(self) -> None:
        assert not Batcher("local").due(0)

    def test_a_flush_a_second(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        now = platform.clock.now_ms()
        batcher.add(invocation(platform.ctx))
        assert batcher.due(now)
        batcher.flush(platform.ctx)
        batcher.add(invocation(platform.ctx))
        assert not batcher.due(now + FLUSH_MS - 1)
        assert batcher.due(now + FLUSH_MS)
        assert batcher.due(now - 1), "the clock was set back"

    def test_many_do_not_wait(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        batcher.flush(platform.ctx)
        one = invocation(platform.ctx)
        for _ in range(PROMPT):
            assert not batcher.due(platform.clock.now_ms())
            batcher.add(replace(one, id=platform.ctx.ids.new("i", platform.clock.now_ms())))
        assert batcher.due(platform.clock.now_ms())

    def test_until_a_checkpoint_covers_it(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        for _ in range(2):  # the second is written within a second after a checkpoint was signed
            batcher.add(invocation(platform.ctx))
            batcher.flush(platform.ctx)
        assert log.checkpoint(platform.ctx)["size"] == 1
        flushes = 0
        while batcher.waits:
            platform.clock.advance(FLUSH_MS)
            assert batcher.due(platform.clock.now_ms())
            assert batcher.flush(platform.ctx) == []
            flushes += 1
        assert (log.checkpoint(platform.ctx)["size"], flushes) == (2, 2)

    def test_it_is_full_while_the_store_is_down(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        one = invocation(platform.ctx)
        for _ in range(HELD_MAX):
            assert not batcher.full
            batcher.add(replace(one, id=platform.ctx.ids.new("i", platform.clock.now_ms())))
            if len(batcher._pending) == 1000:  # as many as need be: the rest are alike
                batcher._pending |= {str(number): one for number in range(HELD_MAX - 1001)}
                break
        assert not batcher.full
        batcher.add(one)
        assert batcher.full


class TestCut:
    """What goes into one batch."""

    def made(self, platform: Platform, count: int, **fields: Any) -> list[Invocation]:
        terms = pricing.terms_of_call(platform.ctx, "wasm", "fast", Resources())
        return [invocation(platform.ctx, number, **{"terms": terms, **fields}) for number in range(count)]

    def test_one_tenant(self) -> None:
        platform = Platform()
        mixed = self.made(platform, 3) + self.made(platform, 2, tenant="globex")
        parts = [[each for _, each in part] for part in batches.cut(mixed)]
        assert [({each.tenant for each in part}, len(part)) for part in parts] == [({"acme"}, 3), ({"globex"}, 2)]

    def test_one_token_and_settlement(self) -> None:
        platform = Platform()
        one = self.made(platform, 2)
        rates = replace(one[0].terms.rates, token="other")
        where = statement.Settlement(chain_id=7)
        other = [replace(one[0], id=f"{one[0].id[:-1]}0", terms=replace(one[0].terms, rates=rates))]
        third = [replace(one[0], id=f"{one[0].id[:-1]}1", terms=replace(one[0].terms, settlement=where))]
        assert [len(part) for part in batches.cut(one + other + third)] == [2, 1, 1]

    def test_no_more_than_the_most(self) -> None:
        platform = Platform()
        parts = list(batches.cut(self.made(platform, batches.INVOCATIONS_MAX + 1)))
        assert [len(part) for part in parts] == [batches.INVOCATIONS_MAX, 1]

    def test_not_over_a_minute(self) -> None:
        platform = Platform()
        early = self.made(platform, 2)
        platform.clock.advance(SPAN_MS)
        parts = [[each.id for _, each in part] for part in batches.cut(self.made(platform, 1) + early)]
        assert [len(part) for part in parts] == [2, 1]
        assert parts[0] == sorted(each.id for each in early)

    def test_the_largest_invocations_still_fit_into_records(self) -> None:
        platform = Platform()
        digest = hashlib.sha256(b"x").hexdigest()
        outputs = [Output(name="n" * 250 + f"{n:05d}", size=2**53 - 1, blob=f"b1-{digest}") for n in range(64)]
        most = 2**53 - 1
        usage = Usage(**dict.fromkeys(forms._USAGE, most))
        made = []
        for number in range(60):
            odd = {"trap": "\U0001f600" * 255, "truncated": ["\x01" * 64] * 8, "usage": usage, "outputs": outputs}
            ended = outcome(**odd).model_copy(update={"runtime_version": f"\x02{number}" + "é" * 200})
            made.append(invocation(platform.ctx, number, outcome=ended, function="f" * 64 + f"@{number}"))
        parts = list(batches.cut(made))
        assert len(parts) > 1
        for part in parts:
            sealed = batches.seal(platform.ctx, "invoke-local", part)
            assert len(json.dumps(sealed.statements.body, ensure_ascii=False).encode()) < RECORD_MAX
            batches.write(platform.ctx, sealed)
        log.sequence(platform.ctx)
        for each in made[::17]:
            check(receipt_of(platform, each.id), platform, job=each.id)


def test_the_root_is_that_of_the_statements_fields() -> None:
    platform = Platform()
    random = Random(3)
    for number in range(200):
        usage = {name: random.randrange(2 ** random.randrange(1, 53)) for name in forms._USAGE}
        if random.random() < 0.5:
            usage.pop("fuel")
        outputs = [
            Output(name=f"o.{n}-x_Y", size=random.randrange(9), blob=f"b1-{random.randbytes(32).hex()}")
            for n in range(random.randrange(3))
        ]
        ended = outcome(outputs=outputs, usage=Usage(**usage), truncated=["stdout"] * random.randrange(2))
        each = invocation(platform.ctx, number, outcome=ended, function=f"fé@{number}")
        kind, row = forms.Kind.of(each, "invoke-é%s"), forms.row(each)
        body = forms.body(kind.shared, row)
        assert set(body) == set(forms.FIELDS)
        assert forms.root(kind, row) == statement.root(statement.field_digests(body))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 64, 100])
def test_every_place_of_a_batch_has_its_proof(size: int) -> None:
    platform = Platform()
    for each in flushed(platform, size):
        check(receipt_of(platform, each), platform, job=each)


def test_nodes_over_leaves_are_those_of_the_tree() -> None:
    hashed = [merkle.leaf_hash(b"%d" % number) for number in range(11)]
    nodes = merkle.nodes_over(hashed)
    assert nodes(3, 0) == merkle.node_hash(nodes(2, 0), nodes(2, 1))
    for index in range(11):
        proof = merkle.inclusion_proof(index, 11, nodes)
        tree = merkle.Frontier()
        for each in hashed:
            tree.append(each)
        assert merkle.root_from_inclusion(index, 11, hashed[index], proof) == tree.root()


class TestFound:
    """A receipt is found by the invocation's id, wherever its batch is."""

    def test_among_batches_of_several_processes(self) -> None:
        platform = Platform()
        batchers = [Batcher("local") for _ in range(3)]
        ids = []
        for number in range(60):
            each = invocation(platform.ctx, number)
            batchers[number % 3].add(each)
            ids.append(each.id)
            platform.clock.advance(700)
            if number % 5 == 4:
                batchers[number % 3].flush(platform.ctx)
        for batcher in batchers:
            batcher.flush(platform.ctx)
        platform.clock.advance(2000)
        log.sequence(platform.ctx)
        for each in ids:
            check(receipt_of(platform, each), platform, job=each)

    def test_one_that_ran_for_long_behind_many(self) -> None:
        platform = Platform()
        long = invocation(platform.ctx)
        batcher = Batcher("local")
        for number in range(55):
            flushed(platform, 1, batcher)
            if number == 50:
                batcher.add(long)
        batcher.add(invocation(platform.ctx))
        check(receipt_of(platform, long.id), platform, job=long.id)

    def test_in_the_next_partition(self) -> None:
        platform = Platform()
        platform.clock.advance((1 << 20) - platform.clock.now_ms() % (1 << 20) - 3)
        ids = flushed(platform, 8)
        parts = {keys.batch_partition("acme", forms.began_ms(each[2:])) for each in ids}
        assert len(parts) == 2
        assert len(records(platform, keys.LEAF)) == 1
        for each in ids:
            check(receipt_of(platform, each), platform, job=each)

    def test_not_by_others_and_not_before_it_is_written(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        each = invocation(platform.ctx)
        batcher.add(each)
        for tenant in ("acme", "globex"):
            with pytest.raises(NotFound, match="no receipt") as told:
                batches.receipt(platform.ctx, tenant, each.id)
            assert "a second after the answer" in str(told.value.hint)
        assert batches.expected(platform.ctx, each.id)
        log.sequence(platform.ctx)
        batcher.flush(platform.ctx)
        with pytest.raises(NotFound):
            batches.receipt(platform.ctx, "globex", each.id)
        assert batches.receipt(platform.ctx, "acme", each.id).receipt is not None
        platform.clock.advance(10 * SPAN_MS)
        assert not batches.expected(platform.ctx, each.id)

    def test_one_that_waits_for_its_checkpoint(self) -> None:
        platform = Platform()
        flushed(platform, 1)
        batcher = Batcher("local")
        log.sequence(platform.ctx)
        each = invocation(platform.ctx)
        batches.write(platform.ctx, batches.seal(platform.ctx, "invoke-local", next(batches.cut([each]))))
        assert batches.receipt(platform.ctx, "acme", each.id).receipt is None
        assert batcher.flush(platform.ctx) == []
        log.sequence(platform.ctx)
        assert receipt_of(platform, each.id)

    def test_neighbours_of_an_id_are_not_it(self) -> None:
        platform = Platform()
        (each,) = flushed(platform, 1)
        for last in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".replace(each[-1], ""):
            with pytest.raises(NotFound):
                batches.receipt(platform.ctx, "acme", each[:-1] + last)

    def test_statements_that_are_lost_or_altered(self) -> None:
        platform = Platform()
        (each,) = flushed(platform, 1)
        (batch,) = records(platform, keys.STATEMENTS)
        changed = json.loads(json.dumps(batch.body))
        changed["rows"][0][5] = "1"
        platform.store.transact([Put(batch.key, changed)])
        with pytest.raises(InternalError, match="not what was signed"):
            batches.receipt(platform.ctx, "acme", each)
        platform.store.transact([Delete(batch.key)])
        with pytest.raises(InternalError, match="not there"):
            batches.receipt(platform.ctx, "acme", each)


class _Forgets:
    """A store whose next transaction is applied, and lost before it is durable."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        if self.lost:
            self.lost -= 1
            return
        self._inner.transact(operations, sends)


class TestOnce:
    """A batch is there once, whatever happened to its writes."""

    def once(self, platform: Platform, ids: list[str]) -> None:
        assert sorted(row[1] for row in rows_of(platform)) == sorted(ids)
        platform.clock.advance(2000)
        log.sequence(platform.ctx)
        assert log.checkpoint(platform.ctx)["size"] == len(records(platform, keys.LEAF))
        for each in ids:
            check(receipt_of(platform, each), platform, job=each)

    @pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.REPLY_LOST])
    def test_a_write_without_an_answer(self, fault: Fault) -> None:
        platform, batcher = Platform(), Batcher("local")
        batcher.flush(platform.ctx)
        ctx = replace(platform.ctx, store=FaultyStore(platform.store, scripted(f"transact:{fault}")))
        first = invocation(ctx)
        batcher.add(first)
        with pytest.raises(Unavailable):
            batcher.flush(ctx)
        platform.clock.advance(FLUSH_MS)
        later = invocation(ctx)
        batcher.add(later)
        assert batcher.due(platform.clock.now_ms())
        assert batcher.flush(ctx) == [first.id, later.id]
        assert len(records(platform, keys.LEAF)) == 2
        self.once(platform, [first.id, later.id])

    def test_a_write_that_was_lost_before_it_was_durable(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        store = _Forgets(platform.store)
        ctx = replace(platform.ctx, store=store)
        batcher.flush(ctx)
        each = invocation(ctx)
        batcher.add(each)
        store.lost = 1
        assert batcher.flush(ctx) == [each.id]
        assert rows_of(platform) == []
        platform.clock.advance(FLUSH_MS)
        assert batcher.flush(ctx) == [each.id], "it is written again"
        self.once(platform, [each.id])

    def test_the_same_invocation_twice(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        each = invocation(platform.ctx)
        batcher.add(each)
        batcher.add(each)
        assert batcher.flush(platform.ctx) == [each.id]
        self.once(platform, [each.id])

    def test_a_batch_with_the_name_of_another_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        platform = Platform()
        one, other = Batcher("local"), Batcher("local")
        each = invocation(platform.ctx)
        one.add(each)
        one.flush(platform.ctx)
        other.add(replace(each, outcome=outcome(b"another")))
        assert other.flush(platform.ctx) == []
        assert "is dropped" in caplog.text
        self.once(platform, [each.id])

    def test_what_dies_with_its_process_is_not_billed(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        batcher.add(invocation(platform.ctx))
        del batcher
        assert Batcher("local").flush(platform.ctx) == []
        assert rows_of(platform) == []


def test_the_first_key_of_a_name_stays() -> None:
    platform = Platform()
    flushed(platform, 1)
    other = replace(platform.ctx, vault=MemoryVault(Random(9)), agents={})
    batcher = Batcher("local")
    batcher.add(invocation(platform.ctx))
    with pytest.raises(PermissionDenied, match="another key"):
        batcher.flush(other)
    assert batcher.flush(platform.ctx), "nothing was lost"


def test_a_tariff_of_later_does_not_change_what_was_agreed() -> None:
    platform, batcher = Platform(), Batcher("local")
    batcher.add(invocation(platform.ctx))
    dear = tariff.parse('version="9"\ntoken="credit"\n[[rate]]\nruntime="wasm"\nattempt=9999\n', "t")
    (each,) = batcher.flush(replace(platform.ctx, tariff=dear))
    assert check(receipt_of(platform, each), platform).units == 333


class TestAudit:
    """Repairs know the records; what is wrong with them is named, and left."""

    def findings(self, rows: list[Row]) -> list[tuple[str, str]]:
        found = audit.findings(rows, lambda _: False, 0, Platform().ctx.policy)
        return [(each.check, each.found) for each in found if not each.operations]

    def test_what_is_written_has_no_findings(self) -> None:
        platform, batcher = Platform(), Batcher("local")
        flushed(platform, 3, batcher)
        flushed(platform, 2, batcher, tenant="globex")
        unplaced = next(batches.cut([invocation(platform.ctx)]))
        batches.write(platform.ctx, batches.seal(platform.ctx, "invoke-local", unplaced))
        rows = rows_in(platform.commits.database)
        assert self.findings(rows) == []
        for row in rows:
            expected = audit.expected_entries(row)
            assert json.loads(row.entries or "") == {name: list(entry) for name, entry in (expected or {}).items()}

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda body: body["rows"].pop(), "not those that were signed"),
            (lambda body: body["header"].update(root="00" * 32), "not those that were signed"),
            (lambda body: body["rows"][0].__setitem__(5, "1"), "another sum"),
            (lambda body: body.pop("digests"), "cannot be read"),
            (lambda body: body["rows"][0].__setitem__(5, None), "cannot be read"),
            (lambda body: body.update(header=3), "cannot be read"),
        ],
    )
    def test_statements_that_are_not_right(self, change: Any, says: str) -> None:
        platform = Platform()
        flushed(platform, 3)
        (batch,) = records(platform, keys.STATEMENTS)
        assert audit_batches.fault(batch.body) is None
        body = json.loads(json.dumps(batch.body))
        change(body)
        assert says in str(audit_batches.fault(body))

    @pytest.mark.parametrize("gone", [keys.LEAF, keys.STATEMENTS])
    def test_a_half_of_a_batch_is_named_and_not_made_again(self, gone: str) -> None:
        platform = Platform()
        flushed(platform, 1)
        rows = [row for row in rows_in(platform.commits.database) if not row.key.sk.startswith(gone)]
        ((check_, found),) = self.findings(rows)
        assert (check_, "lost" in found) == ("batch", True)
