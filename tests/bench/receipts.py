"""What a receipt costs: statement, leaf, place in the log, proof, and verification.

Method. *Added to a job* is the CPU time that a job takes more than without statements, part by part, each over many
different jobs: the agent makes and signs the statement; the platform makes it again and verifies the signature; the
leaf is written, measured as the difference between transactions of eight outcomes with their leaves and without, in
turns; and the sequencer gives it its place.
The parts that go to the store count this process and a writer process, whose database is synced at each commit.
*Appended* is the sequencer's rate over leaves that wait in such a store, to the last durable commit. The peer is
pymerkle 7 (SqliteTree, a file of its own, one transaction, and InmemoryTree), which hashes and stores the same leaves;
it has no second process, no compare-and-set, no checkpoints, and is told all leaves at once. *Verified* receipts are
different ones, in a process that has verified others before; beside it is what its two signatures alone cost with
`cryptography`. *Invocations* are the CPU time, of this process and the writer, of taking many and flushing them in
batches of one size: statements, root, signature, records, commit, and the leaf's place. *Its receipt* is read, made,
and verified, out of full batches. The *export* is raw leaves in memory, as `hzc log verify` reads them, against the
peer's tree that is filled with as many. *Proofs* come from the store of a log of ten million leaves (all alike, so
that it is filled in seconds), each from a part of it that was not asked for before.

What it does not show. HTTP, and reading receipts from disk. The log of ten million leaves is in the page cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from pymerkle import InmemoryTree, SqliteTree

from hanzo_compute.adapters.local import schema
from hanzo_compute.adapters.local.vault import FileVault
from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.model import keys, statement
from hanzo_compute.model.keys import Key
from hanzo_compute.model.outcome import Category, Outcome, Output, Usage
from hanzo_compute.model.spec import Resources
from hanzo_compute.model.statement import Signed, Subject, Terms
from hanzo_compute.model.tariff import DEFAULT
from hanzo_compute.ports import KeyKind, Lease, Put
from hanzo_compute.services import batches, complete, leaves, log, pricing, receipts
from hanzo_compute.services.batches import INVOCATIONS_MAX
from hanzo_compute.services.invocations import Batcher
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.receipt import verify
from hanzo_compute.wiring import Container
from hanzo_compute_agent.signing import Signer
from tests.bench import cpu
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread
from tests.bench.servers import container
from tests.support import statements
from tests.support.invocations import invocation
from tests.support.stepped import Platform
from tests.support.writer import WriterProcess

TOGETHER = 8
SMALL = 16
FULL = f"invocations in batches of {INVOCATIONS_MAX}"
FEW = f"invocations in batches of {SMALL}"
MODULE = "b1-" + "ab" * 32
SPEC = {"source": {"module": MODULE}, "resources": {"memory_mib": 64, "timeout_s": 10}, "labels": {"team": "bench"}}

Times = dict[str, list[float]]


def outcome(number: int) -> Outcome:
    """That of a small job."""
    output = Output(name="stdout", size=8, inline_base64=base64.b64encode(b"%08d" % number).decode())
    usage = Usage(wall_ms=number % 97, cpu_ms=3, memory_peak_bytes=1 << 20, memory_mib_ms=640, fuel=number)
    return Outcome(category=Category.OK, exit_code=0, outputs=[output], usage=usage, runtime_version="wasmtime 50.0.1")


def lease(number: int) -> Lease:
    """A lease of the same job."""
    rates = DEFAULT.find("wasm", "fast", 0)
    assert rates is not None
    terms = Terms(rates, 10**6).as_json()
    return Lease(f"j-{number:026d}", 1, "wasm", SPEC, 15_000, 10_000, False, terms=terms)


def signing(folder: Path, count: int, times: Times) -> list[Signed]:
    """The agent's part, and the platform's; CPU ms for a job."""
    signer = Signer(FileVault(folder), "local-1")
    signer.sign(lease(0), outcome(0))
    work = [(lease(number), outcome(number)) for number in range(count)]
    begin = time.process_time()
    signed = [signer.sign(held, ended) for held, ended in work]
    times["statement, made and signed by the agent"].append((time.process_time() - begin) * 1000 / count)
    statement.holds.cache_clear()
    spec = {"spec": statement.canonical.digest(SPEC), "code": MODULE[3:]}
    terms = Terms.from_json(work[0][0].terms)  # a process keeps the tariffs that it has read
    begin = time.process_time()
    for (held, ended), each in zip(work, signed, strict=True):
        subject = Subject(held.job, 1, "local-1", spec["spec"], spec["code"], None, "wasm")
        body = statement.body(subject, ended, terms)
        root = statement.root(statement.field_digests(body))
        assert statement.holds(each.key, each.signature, statement.signing_digest(body, root))
    times["statement, made again and verified"].append((time.process_time() - begin) * 1000 / count)
    return signed


def leaf_puts(ctx: Container, count: int, signed: list[Signed]) -> Iterator[Put]:
    """Leaves of outcomes, each of a job of its own."""
    for number in range(count):
        job = _job(ctx, number)
        stated = complete.Stated({}, hashlib.sha256(b"%d" % number).digest(), signed[number % len(signed)])
        bill = {"token": "credit", "units": str(number)}
        yield leaves.of_outcome(ctx, job, category="ok", bill=bill, stated=stated).put(1)


def outcome_puts(ctx: Container, name: str) -> Iterator[Put]:
    """What a transaction of eight outcomes writes besides leaves: record, event and attempt of each job."""
    for number in range(TOGETHER):
        pk = f"BENCH#{name}-{number}"
        index = {"tenant": ("T", pk), "state": ("T#succeeded", pk), "due": ("D", pk)}
        yield Put(Key(pk, "META"), {"text": "x" * 500}, index=index)
        yield Put(Key(pk, "EVENT"), {"text": "x" * 100})
        yield Put(Key(pk, "ATTEMPT"), {"text": "x" * 1500})


def _job(ctx: Container, number: int) -> Any:
    from hanzo_compute.model.job import Job
    from hanzo_compute.model.states import State

    now = ctx.clock.now_ms()
    return Job(
        id=ctx.ids.new("j", now),
        tenant="default",
        state=State.SUCCEEDED,
        runtime="wasm",
        created_ms=now,
        updated_ms=now,
        due_ms=None,
        timeout_s=10,
        spec_digest="",
        attempt=1,
    )


def sequencing(folder: Path, count: int, signed: list[Signed], times: Times) -> None:
    """Leaves are written and get their places; CPU ms for each, and the rate."""
    folder.mkdir(mode=0o700)
    writer = WriterProcess(folder)
    try:
        with closing(_Connected(folder)) as connected:
            ctx = connected.ctx
            spent = [0.0, 0.0]  # without leaves, and with them
            puts = leaf_puts(ctx, count, signed)
            for number in range(0, count, TOGETHER):
                for kind in (0, 1):
                    batch = list(outcome_puts(ctx, f"{number}-{kind}"))
                    used = _cpu(writer)
                    batch += islice(puts, TOGETHER) if kind else ()
                    ctx.store.transact(batch)
                    connected.durable()
                    spent[kind] += _cpu(writer) - used
            times["leaf, written with its outcome"].append((spent[1] - spent[0]) * 1000 / count)
            used, begin, done = _cpu(writer), time.perf_counter(), 0
            while done < count:
                done += log.sequence(ctx).appended
                connected.durable()
            times["appended/s"].append(count / (time.perf_counter() - begin))
            times["leaf, given its place"].append((_cpu(writer) - used) * 1000 / count)
    finally:
        writer.stop()


class _Connected:
    """The services' context on a writer."""

    def __init__(self, home: Path) -> None:
        self.ctx = container(home)

    def durable(self) -> None:
        commits = self.ctx.commits
        assert commits is not None
        ticket = commits.take()
        if ticket is not None:
            commits.wait(ticket)

    def close(self) -> None:
        self.ctx.store.close()  # type: ignore[attr-defined]
        self.ctx.commits.close()  # type: ignore[union-attr]


def _cpu(writer: WriterProcess) -> float:
    return cpu.of(os.getpid()).total + cpu.of(writer.pid).total


def batching(folder: Path, count: int, times: Times) -> None:
    """Invocations are taken and flushed, in full batches and in small ones; CPU µs for each."""
    folder.mkdir(mode=0o700)
    writer = WriterProcess(folder)
    try:
        with closing(_Connected(folder)) as connected:
            ctx, batcher = connected.ctx, Batcher("bench")
            terms = pricing.terms_of_call(ctx, "wasm", "fast", Resources())
            batcher.flush(ctx)
            connected.durable()
            for size, name in ((min(INVOCATIONS_MAX, count), FULL), (SMALL, FEW)):
                made = [invocation(ctx, number, tenant="bench", terms=terms) for number in range(count)]
                used = _cpu(writer)
                for start in range(0, count, size):
                    for each in made[start : start + size]:
                        batcher.add(each)
                    batcher.flush(ctx)
                    connected.durable()
                times[name].append((_cpu(writer) - used) * 1e6 / count)
                if name == FULL:
                    _settled(connected, batcher)
                    _reading(ctx, [each.id for each in made[:: max(1, count // 100)]], times)
    finally:
        writer.stop()


def _settled(connected: _Connected, batcher: Batcher) -> None:
    """All that was flushed is under a checkpoint."""
    while batcher.waits:
        time.sleep(0.1)
        if batcher.due(connected.ctx.clock.now_ms()):
            batcher.flush(connected.ctx)
            connected.durable()


def _reading(ctx: Container, ids: list[str], times: Times) -> None:
    key = log.verifier_key(ctx)
    waits: tuple[list[float], list[float]] = ([], [])
    for each in ids:
        begin = time.perf_counter()
        receipt = batches.receipt(ctx, "bench", each).receipt
        middle = time.perf_counter()
        verify(receipt, lambda _: key, lambda *_: True, job=each)
        waits[0].append((middle - begin) * 1000)
        waits[1].append((time.perf_counter() - middle) * 1000)
    times["its receipt made, ms"].append(percentile(waits[0], 0.5))
    times["its receipt verified, ms"].append(percentile(waits[1], 0.5))


def peer_append(folder: Path, count: int, times: Times) -> None:
    """The peer stores as many leaves in a file."""
    data = [hashlib.sha256(b"%d" % number).digest() for number in range(count)]
    folder.mkdir(mode=0o700)
    tree = SqliteTree(str(folder / "peer.db"))
    begin = time.perf_counter()
    tree.append_entries(data, chunksize=10_000)
    times["appended/s, peer"].append(count / (time.perf_counter() - begin))
    tree.close()


def verifying(count: int, times: Times) -> None:
    """Different receipts of one platform, and their two signatures alone."""
    platform = Platform()
    jobs = []
    for number in range(count):
        claim = platform.running()
        complete.complete(platform.ctx, statements.ended(platform.ctx, claim, outcome(number)))
        jobs.append(claim.job)
    platform.clock.advance(1000)
    log.sequence(platform.ctx)
    made = [json.loads(json.dumps(receipts.receipt(platform.ctx, "acme", job).receipt)) for job in jobs]
    key = log.verifier_key(platform.ctx)
    statement.holds.cache_clear()
    waits = []
    for receipt in made:
        begin = time.perf_counter()
        verify(receipt, lambda _: key, lambda *_: True)
        waits.append((time.perf_counter() - begin) * 1000)
    times["verified, ms"].append(percentile(waits, 0.5))
    vault = MemoryVault(Random(1))
    public = statement._public(vault.public_key("p", KeyKind.P256))
    signature = vault.sign("p", KeyKind.P256, bytes(32))
    encoded = utils.encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    other = Ed25519PublicKey.from_public_bytes(vault.public_key("e", KeyKind.ED25519)[-32:])
    signed = vault.sign("e", KeyKind.ED25519, b"x" * 100)
    begin = time.perf_counter()
    for _ in range(count):
        public.verify(encoded, bytes(32), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        other.verify(signed, b"x" * 100)
    times["its two signatures, ms"].append((time.perf_counter() - begin) * 1000 / count)


def exporting(count: int, peer: int, times: Times) -> None:
    """The root over raw leaves, in chunks as a file is read."""
    data = os.urandom(32) * count
    begin = time.perf_counter()
    bulk = merkle.BulkRoot()
    for start in range(0, len(data), 4096 * 32):
        bulk.update(data[start : start + 4096 * 32])
    bulk.root()
    times["export, leaves/s"].append(count / (time.perf_counter() - begin))
    tree = InmemoryTree()
    begin = time.perf_counter()
    for start in range(0, peer * 32, 32):
        tree.append_entry(data[start : start + 32])
    assert tree.get_root()
    times["export, leaves/s, peer"].append(peer / (time.perf_counter() - begin))


class Alike:
    """A log of one leaf many times, in a store."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(mode=0o700)
        self.size = size
        writer = WriterProcess(folder)
        self.levels = [merkle.leaf_hash(bytes(32))]
        for _ in range(40):
            self.levels.append(merkle.node_hash(self.levels[-1], self.levels[-1]))
        writer.stop()
        with closing(sqlite3.connect(schema.path_of(folder))) as db, db:
            for level in range(4):
                db.executemany("INSERT INTO records VALUES (?, ?, 1, ?, NULL)", self._tiles(level))
            body = json.dumps({"size": size, "root": "", "note": "", "at_ms": 0})
            db.execute("INSERT INTO records VALUES (?, ?, 1, ?, NULL)", (*keys.checkpoint(), body))
        self._writer = WriterProcess(folder)
        self._connected = _Connected(folder)
        self._random = Random(1)

    def _tiles(self, level: int) -> Iterator[tuple[str, str, str]]:
        count, one = self.size >> 8 * level, self.levels[8 * level] if level else bytes(32)
        full = json.dumps({"data": base64.b64encode(one * 256).decode()})
        for number in range(-(-count // 256)):
            short = count - number * 256
            text = full if short >= 256 else json.dumps({"data": base64.b64encode(one * short).decode()})
            yield (*keys.tile(level, number), text)

    def measure(self, count: int, times: Times) -> None:
        root = merkle.Frontier(
            self.size, [self.levels[level] for level in range(40, -1, -1) if self.size >> level & 1]
        ).root()
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(count):
            index = self._random.randrange(self.size)
            begin = time.perf_counter()
            path = log.inclusion(self._connected.ctx, index, self.size)
            found["proof"].append((time.perf_counter() - begin) * 1000)
            assert (
                merkle.root_from_inclusion(index, self.size, self.levels[0], [bytes.fromhex(p) for p in path]) == root
            )
            begin = time.perf_counter()
            log.consistency(self._connected.ctx, index + 1, self.size)
            found["consistency"].append((time.perf_counter() - begin) * 1000)
        times["inclusion proof, ms"].append(percentile(found["proof"], 0.5))
        times["inclusion proof, worst, ms"].append(max(found["proof"]))
        times["consistency proof, ms"].append(percentile(found["consistency"], 0.5))

    def close(self) -> None:
        self._connected.close()
        self._writer.stop()


def run(options: Options) -> Report:
    """Rounds of each part in turn."""
    times: Times = defaultdict(list)
    folder = options.folder("receipts")
    jobs, many = options.size(1000, 20), options.size(24_000, 200)
    options.say("filling the log of the proofs")
    with closing(Alike(folder / "alike", options.size(10_000_000, 70_000))) as alike:
        for number in range(options.rounds):
            parts: list[Callable[[], object]] = [
                lambda number=number: sequencing(
                    folder / f"log-{number}", many, signing(folder / f"keys-{number}", jobs, times), times
                ),  # type: ignore[misc]
                lambda number=number: peer_append(folder / f"peer-{number}", many, times),  # type: ignore[misc]
                lambda number=number: batching(folder / f"batches-{number}", many, times),  # type: ignore[misc]
                lambda: verifying(options.size(300, 5), times),
                lambda: exporting(options.size(1_000_000, 5000), options.size(20_000, 500), times),
                lambda: alike.measure(options.size(200, 5), times),
            ]
            for part in parts:
                part()
            options.say(f"round {number + 1} of {options.rounds}")
    return report(times)


ADDED = (
    "statement, made and signed by the agent",
    "statement, made again and verified",
    "leaf, written with its outcome",
    "leaf, given its place",
)


def report(times: Times) -> Report:
    """A row for each part."""
    made = Report("Receipts: what they cost, and what verifies them", ["", "ours", "peer", "ours / peer"])
    for name in ADDED:
        made.rows.append([f"CPU ms of a job: {name}", spread(times[name]), None, None])
    total = [sum(parts) for parts in zip(*(times[name] for name in ADDED), strict=True)]
    made.rows.append(["CPU ms of a job, added in all", spread(total), None, None])
    for name in (FULL, FEW):
        made.rows.append([f"CPU µs of each of {name}", spread(times[name]), None, None])
    for name in ("its receipt made, ms", "its receipt verified, ms"):
        made.rows.append([f"an invocation: {name}", spread(times[name]), None, None])
    appended, peer = times["appended/s"], times["appended/s, peer"]
    made.rows.append(
        ["leaves appended/s (pymerkle SqliteTree)", spread(appended), spread(peer), ratios(appended, peer)]
    )
    verified, alone = times["verified, ms"], times["its two signatures, ms"]
    made.rows.append(
        ["receipt verified, ms (its two signatures alone)", spread(verified), spread(alone), ratios(verified, alone)]
    )
    exported, peer = times["export, leaves/s"], times["export, leaves/s, peer"]
    made.rows.append(
        ["export verified, leaves/s (pymerkle InmemoryTree)", spread(exported), spread(peer), ratios(exported, peer)]
    )
    for name in ("inclusion proof, ms", "inclusion proof, worst, ms", "consistency proof, ms"):
        made.rows.append([f"10 million leaves: {name}", spread(times[name]), None, None])
    made.targets += [
        Target("CPU that statement and leaf add to a job, ms", spread(total), 0.5),
        Target("CPU that receipts add to an invocation in a full batch, µs", spread(times[FULL]), 100),
        Target("leaves appended/s", spread(appended), 20_000, at_most=False),
        Target("receipt verified, ms", spread(verified), 1.0),
        Target("export verified, leaves/s", spread(exported), 400_000, at_most=False),
        Target("inclusion proof, 10 million leaves, ms", spread(times["inclusion proof, ms"]), 5.0),
    ]
    return made
