"""Batches of invocations in a real state folder: written, repaired, backed up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hanzo_compute import wiring
from hanzo_compute.adapters.local import schema
from hanzo_compute.config import Config
from hanzo_compute.services import batches, log
from hanzo_compute.services.invocations import FLUSH_MS, Batcher
from hanzo_compute.transparency.receipt import Verified, verify
from hanzo_compute.wiring import Container
from hanzo_compute_host import backups
from hanzo_compute_host.repair import repair
from tests.support.invocations import invocation
from tests.support.live import until
from tests.support.writer import WriterProcess


@contextmanager
def connected(home: Path) -> Iterator[Container]:
    ctx = wiring.local(Config("local", home, "http://127.0.0.1", home))
    try:
        yield ctx
    finally:
        ctx.store.close()  # type: ignore[attr-defined]
        ctx.commits.close()  # type: ignore[union-attr]


def durable(ctx: Container) -> None:
    assert ctx.commits is not None
    if (ticket := ctx.commits.take()) is not None:
        ctx.commits.wait(ticket)


def flushed(ctx: Container, count: int) -> list[str]:
    """Invocations in batches, durable and under a checkpoint."""
    batcher, done = Batcher("local"), []
    for number in range(count):
        batcher.add(invocation(ctx, number))
    while batcher.waits:
        done += batcher.flush(ctx)
        durable(ctx)
        until(lambda: not batcher.waits or batcher.due(ctx.clock.now_ms()), 3 * FLUSH_MS / 1000, "the next flush")
    return done


def verified(ctx: Container, invocation_id: str) -> Verified:
    found = batches.receipt(ctx, "acme", invocation_id).receipt
    assert found is not None
    return verify(found, lambda _: log.verifier_key(ctx), lambda *_: True, job=invocation_id)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def test_what_is_flushed_is_there_after_a_crash_and_what_is_not_is_lost(home: Path) -> None:
    writer = WriterProcess(home)
    try:
        with connected(home) as ctx:
            ids = flushed(ctx, batches.INVOCATIONS_MAX + 3)
            Batcher("local").add(lost := invocation(ctx))
    finally:
        writer.kill()
    writer = WriterProcess(home)
    try:
        with connected(home) as ctx:
            assert log.checkpoint(ctx)["size"] == 2
            for each in (ids[0], ids[300], ids[-1]):
                assert verified(ctx, each).units == 333
            with pytest.raises(Exception, match="no receipt"):
                batches.receipt(ctx, "acme", lost.id)
    finally:
        writer.stop()


def test_repairs_and_backups_know_batches(home: Path, tmp_path: Path) -> None:
    writer = WriterProcess(home)
    try:
        with connected(home) as ctx:
            (first, *_) = flushed(ctx, 3)
    finally:
        writer.stop()
    assert [each for each in repair(home, str, digests=True) if each.check == "batch"] == []
    backups.backup(home, tmp_path / "b.tar", force=False, say=str)
    with closing(sqlite3.connect(schema.path_of(home))) as db, db:
        db.execute("DELETE FROM records WHERE pk >= 'BATCH#' AND pk < 'BATCH$' AND sk >= 'BODY#' AND sk < 'BODY$'")
    (finding,) = [each for each in repair(home, str, digests=True) if each.check == "batch"]
    assert (finding.found, finding.repaired) == ("its statements are lost", False)
    backups.restore(home, tmp_path / "b.tar", force=True, say=str)
    with wiring.offline(Config("local", home, "", home)) as (ctx, _):
        assert verified(ctx, first).units == 333
