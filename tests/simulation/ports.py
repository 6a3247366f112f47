"""The ports of one simulated process: the memory twins behind a step of the scheduler at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hanzo_compute.adapters.checks import decode_body, page
from hanzo_compute.adapters.memory import MemoryBlobs, MemoryCommits, MemoryQueue, MemoryStore
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import (
    Body,
    FetchedCollateral,
    Message,
    Operation,
    PresignedUrl,
    Record,
    Send,
    WriteConflict,
)
from hanzo_compute.ports.attesters import Challenge, Found
from tests.simulation.faults import Faults
from tests.simulation.scheduler import SECOND, Scheduler
from tests.simulation.writer import View, Writer
from tests.support.attested import EnrolledTpm
from tests.support.endorsed import EndorsedTpm

ENROLLED: Final = EnrolledTpm("agent-0")
"""The TPM of the first agent: its attestation key is in the tenants' policies."""
ENDORSED: Final = EndorsedTpm()
"""The TPM of the second: it has to show that its attestation key is one of a known maker's TPM."""


class SimClock:
    """Simulated time; asking for it is a step like any other."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._scheduler: Scheduler = faults.scheduler

    def now_ms(self) -> int:
        self._faults.step("clock.now_ms")
        return self._scheduler.now_ms

    def monotonic(self) -> float:
        self._faults.step("clock.monotonic")
        return self._scheduler.now_us / SECOND

    def sleep(self, seconds: float) -> None:
        self._faults.step("clock.sleep")
        self._scheduler.pause(round(seconds * SECOND))


class PlainClock:
    """The same time for the twins themselves, without a step."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def now_ms(self) -> int:
        return self._scheduler.now_ms

    def monotonic(self) -> float:
        return self._scheduler.now_us / SECOND

    def sleep(self, seconds: float) -> None:
        raise AssertionError("the twins never sleep")


class SimStore:
    """Fresh reads and writes go to the writer; all other reads see what is durable, or was a moment ago."""

    def __init__(
        self, faults: Faults, writer: Writer, commits: MemoryCommits, queue: MemoryQueue | None = None
    ) -> None:
        self._faults = faults
        self._writer = writer
        self._commits = commits
        self._inner = MemoryStore(commits, queue)
        self._horizon = 0

    @property
    def sends(self) -> bool:
        return self._inner.sends

    def _view(self) -> View:
        views, profile = self._writer.views, self._faults.profile
        newest = len(views) - 1
        if profile.stale and self._faults.random.random() < profile.stale:
            now = self._faults.scheduler.now_us
            oldest = newest
            while oldest > self._horizon and views[oldest].ended_us > now - SECOND:
                oldest -= 1
            newest = self._faults.random.randint(oldest, newest)
        self._horizon = newest  # what was seen once is never unseen: reads of one process do not go back
        return views[newest]

    def get(self, key: Key, *, fresh: bool = False) -> Record | None:
        call = f"store.get {key.pk} {key.sk}{' fresh' if fresh else ''}"
        lost = self._faults.step(call, fallible=True)
        if fresh:
            self._writer.check_up(self._commits)
            found = self._inner.get(key, fresh=True)
            self._writer.touched()
        else:
            stored = self._view().partitions.get(key.pk, {}).get(key.sk)
            found = None if stored is None else _record(key, stored)
        self._faults.reply(lost, call)
        return found

    def query(
        self, pk: str, *, prefix: str = "", after: str = "", limit: int = 100, reverse: bool = False
    ) -> list[Record]:
        call = f"store.query {pk} {prefix}"
        lost = self._faults.step(call, fallible=True)
        partition = self._view().partitions.get(pk, {})
        beyond: Callable[[str], bool] = lambda sk: not after or (sk < after if reverse else sk > after)  # noqa: E731
        found = sorted(sk for sk in partition if sk.startswith(prefix) and beyond(sk))
        self._faults.reply(lost, call)
        return [_record(Key(pk, sk), partition[sk]) for sk in page(found, limit, reverse)]

    def query_index(
        self,
        index: str,
        pk: str,
        *,
        after: str = "",
        before: str = "",
        limit: int = 100,
        reverse: bool = False,
    ) -> list[tuple[str, Record]]:
        call = f"store.query_index {pk}"
        lost = self._faults.step(call, fallible=True)
        rows = self._view().entries(index, pk)
        found = [row for row in rows if row[0] > after and (not before or row[0] < before)]
        self._faults.reply(lost, call)
        return [(entry, _record(key, stored)) for entry, key, stored in page(found, limit, reverse)]

    def count_index(self, index: str, pk: str, most: int) -> int:
        call = f"store.count_index {pk}"
        lost = self._faults.step(call, fallible=True)
        found = min(len(self._view().entries(index, pk)), most)
        self._faults.reply(lost, call)
        return found

    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        call = f"store.transact {' '.join(f'{o.key.pk}/{o.key.sk}' for o in operations)}"
        lost = self._faults.step(call, fallible=True)
        self._writer.check_up(self._commits)
        before = {operation.key: self._writer.database.record(operation.key) for operation in operations}
        try:
            self._inner.transact(operations, sends)
        except WriteConflict:
            self._faults.note("conflict", call)
            raise
        finally:
            self._writer.touched()
        self._writer.watch.applied(operations, before)
        for each in sends:
            self._writer.watch.sent(each.queue, each.body)
        self._faults.reply(lost, call)


class SimQueue:
    """Messages of the writer's database; they may come twice, late, or (if the profile says so) never."""

    def __init__(self, faults: Faults, writer: Writer, commits: MemoryCommits, inner: MemoryQueue) -> None:
        self._faults = faults
        self._writer = writer
        self._commits = commits
        self._inner = inner

    def _step(self, call: str) -> bool:
        lost = self._faults.step(call, fallible=True)
        self._writer.check_up(self._commits)
        return lost

    def send(self, queue: str, body: Body, *, delay_s: int = 0) -> None:
        call = f"queue.send {queue} {body}"
        lost = self._step(call)
        self._writer.watch.sent(queue, body)
        faults = self._faults
        if faults.chance(faults.profile.message, "a message goes astray"):
            kind = faults.random.randrange(3 if faults.profile.drop else 2)
            faults.note(("it comes twice", "it comes late", "it is lost")[kind])
            if kind == 0:
                self._inner.send(queue, body, delay_s=delay_s)
            delay_s = min(delay_s + (kind == 1) * faults.random.randrange(20), 900)
            if kind < 2:
                self._inner.send(queue, body, delay_s=delay_s)
        else:
            self._inner.send(queue, body, delay_s=delay_s)
        self._writer.touched()
        faults.reply(lost, call)

    def receive(self, queue: str, *, limit: int = 10, visibility_s: int = 30) -> list[Message]:
        call = f"queue.receive {queue}"
        lost = self._step(call)
        found = self._inner.receive(queue, limit=limit, visibility_s=visibility_s)
        self._writer.touched()
        self._faults.reply(lost, call)
        return found

    def ack(self, messages: Sequence[Message]) -> None:
        call = f"queue.ack {[message.id for message in messages]}"
        lost = self._step(call)
        self._inner.ack(messages)
        self._writer.touched()
        self._faults.reply(lost, call)

    def nack(self, message: Message, *, delay_s: int = 0) -> None:
        call = f"queue.nack {message.id}"
        lost = self._step(call)
        self._inner.nack(message, delay_s=delay_s)
        self._writer.touched()
        self._faults.reply(lost, call)

    def redrive(self, queue: str, *, limit: int = 10) -> int:
        call = f"queue.redrive {queue}"
        lost = self._step(call)
        moved = self._inner.redrive(queue, limit=limit)
        self._writer.touched()
        self._faults.reply(lost, call)
        return moved

    def hasten(self, queue: str, *, by_s: int) -> int:
        call = f"queue.hasten {queue} {by_s}"
        lost = self._step(call)
        moved = self._inner.hasten(queue, by_s=by_s)
        self._writer.touched()
        self._faults.reply(lost, call)
        return moved


class SimBlobs:
    """Blobs of all processes; what is put is durable."""

    def __init__(self, faults: Faults, inner: MemoryBlobs) -> None:
        self._faults = faults
        self._inner = inner

    def put(self, tenant: str, data: bytes) -> str:
        lost = self._faults.step("blobs.put", fallible=True)
        blob = self._inner.put(tenant, data)
        self._faults.reply(lost, "blobs.put")
        return blob

    def get(self, tenant: str, blob: str) -> bytes:
        lost = self._faults.step("blobs.get", fallible=True)
        data = self._inner.get(tenant, blob)
        self._faults.reply(lost, "blobs.get")
        return data

    def size(self, tenant: str, blob: str) -> int | None:
        lost = self._faults.step("blobs.size", fallible=True)
        size = self._inner.size(tenant, blob)
        self._faults.reply(lost, "blobs.size")
        return size

    def presign_put(self, tenant: str, blob: str, size: int, *, ttl_s: int = 900) -> PresignedUrl:
        self._faults.step("blobs.presign_put")
        return self._inner.presign_put(tenant, blob, size, ttl_s=ttl_s)

    def presign_get(self, tenant: str, blob: str, *, ttl_s: int = 900) -> PresignedUrl:
        self._faults.step("blobs.presign_get")
        return self._inner.presign_get(tenant, blob, ttl_s=ttl_s)


class SimCollateral:
    """Certificates of TPMs' makers, whose services do not always answer."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def fetch(self, evidence: Sequence[Evidence], now_ms: int) -> FetchedCollateral:
        self._faults.step("collateral.fetch")
        if not any("ek_cert" in each.files for each in evidence):
            return FetchedCollateral({})
        if self._faults.chance(self._faults.profile.uncollected, "collateral is not to be had"):
            return ENDORSED.no_collateral()
        return ENDORSED.collateral()


class SimAttester:
    """The TPM of an agent's machine."""

    def __init__(self, faults: Faults, tpm: EnrolledTpm | EndorsedTpm) -> None:
        self._faults = faults
        self._tpm = tpm

    def detect(self) -> Sequence[Found]:
        return ()

    def collect(self, binding: Challenge) -> Sequence[Evidence]:
        self._faults.step("attester.collect")
        return self._tpm.collect(binding)

    def answer(self, nonce: bytes, only: Platform | None = None) -> Sequence[Evidence]:
        self._faults.step("attester.answer")
        return self._tpm.answer(nonce, only)

    def activate(self, credential: bytes) -> bytes:
        self._faults.step("attester.activate")
        assert isinstance(self._tpm, EndorsedTpm)
        return self._tpm.activate(credential)


def _record(key: Key, stored: StoredRecord) -> Record:
    return Record(key, stored.rev, decode_body(stored.body))
