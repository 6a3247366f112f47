"""The sequencer: one order, one place for each leaf, checkpoints that extend each other, a second apart."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.errors import InternalError, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.ports import KeyKind, Operation, Put, Send, WriteConflict
from hanzo_compute.services import cancel, log
from hanzo_compute.services.context import Context
from hanzo_compute.services.leaves import Leaf
from hanzo_compute.services.log import Sequenced
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.checkpoint import open_checkpoint
from tests.support.faults import Fault, FaultyStore, scripted
from tests.support.stepped import Platform
from tests.support.trees import entries_of, root_of


def logged(platform: Platform) -> list[bytes]:
    """The leaves that the log has, all under the newest checkpoint."""
    found = entries_of(platform.commits.database)
    newest = log.checkpoint(platform.ctx)
    assert (newest["size"], newest["root"]) == (len(found), root_of(found).hex())
    point = open_checkpoint(newest["note"], log.verifier_key(platform.ctx))
    assert (point.size, point.root.hex()) == (newest["size"], newest["root"])
    return found


def ended(platform: Platform, count: int = 1) -> list[str]:
    """Jobs with a leaf each."""
    jobs = [platform.submitted() for _ in range(count)]
    for job in jobs:
        cancel.cancel(platform.ctx, "acme", job)
    return jobs


def leaf(platform: Platform, job: str) -> dict[str, Any]:
    record = platform.store.get(keys.leaf(job, None))
    assert record is not None
    return record.body


def test_an_empty_log() -> None:
    platform = Platform()
    assert log.sequence(platform.ctx) == Sequenced()
    with pytest.raises(NotFound, match="nothing has been logged"):
        log.checkpoint(platform.ctx)
    with pytest.raises(InvalidRequest, match="between 1 and 0"):
        log.inclusion(platform.ctx, 0, 1)
    assert log.entries(platform.ctx, 0, 10) == b""


def test_leaves_get_places_in_the_order_of_their_time() -> None:
    platform = Platform()
    jobs = []
    for _ in range(3):
        jobs += ended(platform)
        platform.clock.advance(1)
    assert log.sequence(platform.ctx) == Sequenced(3, signed=True)
    assert [leaf(platform, job)["index"] for job in jobs] == [0, 1, 2]
    assert [each.hex() for each in logged(platform)] == [leaf(platform, job)["leaf"] for job in jobs]
    assert log.sequence(platform.ctx) == Sequenced()
    assert platform.store.query_index(keys.BY_LOG, keys.unlogged_partition(0), limit=9) == []


def test_a_leaf_hides_its_body() -> None:
    platform = Platform()
    one, two = (leaf(platform, job) for job in ended(platform, 2))
    assert one["leaf"] == Leaf(bytes.fromhex(one["salt"]), one["body"]).data.hex()
    assert len(bytes.fromhex(one["salt"])) == 32
    assert one["salt"] != two["salt"]
    assert Leaf(bytes.fromhex(two["salt"]), one["body"]).data.hex() not in (one["leaf"], two["leaf"])


def test_checkpoints_are_a_second_apart_and_somebody_comes_back_for_the_next() -> None:
    platform = Platform()
    ended(platform)
    assert log.sequence(platform.ctx).signed
    platform.queue.receive("completion", limit=10)
    platform.clock.advance(400)
    (job,) = ended(platform)
    platform.queue.receive("completion", limit=10)
    assert log.sequence(platform.ctx) == Sequenced(1, signed=False)
    assert log.checkpoint(platform.ctx)["size"] == 1
    platform.clock.advance(601)
    assert log.sequence(platform.ctx) == Sequenced(0, signed=True)
    platform.clock.advance(400)
    (message,) = platform.queue.receive("completion", limit=10)
    assert message.body["job"] == job
    assert len(logged(platform)) == 2


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    platform = Platform()
    ended(platform, 2)
    log.sequence(platform.ctx)
    first = log.checkpoint(platform.ctx)
    platform.clock.advance(-24 * 3600 * 1000)
    ended(platform, 2)
    assert log.sequence(platform.ctx) == Sequenced(2, signed=True)
    found = logged(platform)
    assert root_of(found[: first["size"]]).hex() == first["root"]


@pytest.mark.parametrize("count", [91, 92, 93, 185, 300, 600])
def test_many_leaves(count: int) -> None:
    platform = Platform()
    ended(platform, count)
    assert log.sequence(platform.ctx) == Sequenced(count, signed=True)
    found = logged(platform)
    assert len(found) == len(set(found)) == count
    root = bytes.fromhex(log.checkpoint(platform.ctx)["root"])
    for index in {0, count - 1, count // 2}:
        path = [bytes.fromhex(node) for node in log.inclusion(platform.ctx, index, count)]
        assert merkle.root_from_inclusion(index, count, merkle.leaf_hash(found[index]), path) == root
    for old in {1, count // 2, count}:
        proof = [bytes.fromhex(node) for node in log.consistency(platform.ctx, old, count)]
        merkle.verify_consistency(old, count, root_of(found[:old]), root, proof)
    assert log.entries(platform.ctx, 0, 10**6) == b"".join(found)
    assert log.entries(platform.ctx, 40, 50) == b"".join(found[40:90])
    assert log.entries(platform.ctx, count, 10) == b""
    assert log.entries(platform.ctx, 10**9, 10) == b""


def test_a_log_that_grows_in_small_steps_has_the_tree_of_one_that_did_not() -> None:
    platform = Platform()
    for count in (1, 2, 250, 3, 1, 255, 7):
        ended(platform, count)
        log.sequence(platform.ctx)
        platform.clock.advance(1000)
    assert len(logged(platform)) == 519
    tile = platform.store.get(keys.tile(1, 0))
    assert tile is not None
    assert len(base64.b64decode(tile.body["data"])) == 2 * 32


class Meanwhile(FaultyStore):
    """Before the first transaction of a pass, another pass does all the work."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform.store, scripted())
        self._platform = platform
        self._done = False

    def transact(self, operations: list[Operation], sends: list[Send] = ()) -> None:  # type: ignore[assignment]
        if not self._done:
            self._done = True
            assert log.sequence(self._platform.ctx).appended == 3
        super().transact(operations, sends)


def test_of_two_sequencers_at_once_one_finds_the_order() -> None:
    platform = Platform()
    ended(platform, 3)
    second = replace(platform.ctx, store=Meanwhile(platform))
    assert log.sequence(second) == Sequenced()
    assert len(logged(platform)) == 3


def test_a_pass_that_dies_between_two_transactions_is_gone_on_with() -> None:
    platform = Platform()
    ended(platform, 200)
    calls = iter([None, Fault.BEFORE])
    second = lambda method, possible: next(calls) if method == "transact" else None  # noqa: E731
    broken = replace(platform.ctx, store=FaultyStore(platform.store, second))
    with pytest.raises(Unavailable):
        log.sequence(broken)
    assert log.sequence(platform.ctx) == Sequenced(200 - log.ROOM, signed=True)
    assert len(set(logged(platform))) == 200


def test_a_reply_that_is_lost_costs_nothing() -> None:
    platform = Platform()
    ended(platform, 5)
    broken = replace(platform.ctx, store=FaultyStore(platform.store, scripted("transact:reply_lost")))
    with pytest.raises(Unavailable):
        log.sequence(broken)
    assert log.sequence(platform.ctx) == Sequenced()
    assert len(set(logged(platform))) == 5


def test_a_head_that_moved_is_not_overwritten() -> None:
    platform = Platform()
    ended(platform)
    tree = log._Tree(platform.ctx, None)
    log.sequence(platform.ctx)
    with pytest.raises(WriteConflict):
        tree.append([], sign=True)
    assert len(logged(platform)) == 1


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda ctx: log.inclusion(ctx, 3, 3), "not below size"),
        (lambda ctx: log.inclusion(ctx, -1, 3), "not below size"),
        (lambda ctx: log.inclusion(ctx, 0, 4), "between 1 and 3"),
        (lambda ctx: log.consistency(ctx, 0, 3), "between 1 and 3"),
        (lambda ctx: log.consistency(ctx, 3, 2), "between 1 and 2"),
        (lambda ctx: log.consistency(ctx, 1, 9), "between 1 and 3"),
    ],
)
def test_proofs_that_cannot_be(call: Any, told: str) -> None:
    platform = Platform()
    ended(platform, 3)
    log.sequence(platform.ctx)
    with pytest.raises(InvalidRequest, match=told):
        call(platform.ctx)


def test_a_lost_tile_is_told() -> None:
    platform = Platform()
    ended(platform, 3)
    log.sequence(platform.ctx)
    record = platform.store.get(keys.tile(0, 0))
    assert record is not None
    platform.store.transact([Put(record.key, {"data": ""})])
    with pytest.raises(InternalError, match="lacks hashes"):
        log.inclusion(platform.ctx, 0, 3)
    ended(platform)
    with pytest.raises(InternalError, match="lacks hashes"):
        log.sequence(platform.ctx)


def test_the_origin_is_made_from_the_key() -> None:
    key = log.verifier_key(Platform().ctx)
    assert key.name.startswith("hanzo-compute/log/")
    assert len(key.public) == 32


def test_stored_records_stay_within_their_bound() -> None:
    platform = Platform()
    ended(platform, 256)
    log.sequence(platform.ctx)
    stored = platform.commits.database.partitions["TILE#0"]
    assert all(len(each.body) < 12_000 for each in stored.values())
    assert len(decode_body(stored[keys.tile(0, 0).sk].body)["data"]) == 10_924


def test_the_key_is_an_ed25519_key() -> None:
    ctx: Context = Platform().ctx
    assert ctx.vault.public_key(log.KEY, KeyKind.ED25519).endswith(log.verifier_key(ctx).public)
