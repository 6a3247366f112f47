"""The host's processes: they call services as the handlers do, and keep answers back until they are durable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final, TypeVar

from hanzo_compute.adapters.logs import RecordLogs
from hanzo_compute.adapters.memory import MemoryBlobs, MemoryCommits, MemoryQueue, MemoryVault, SeededIds
from hanzo_compute.errors import ComputeError, Unavailable
from hanzo_compute.ports import Message, queue_wake
from hanzo_compute.services import complete, log, outbox, place, reconcile
from hanzo_compute.services.context import Context
from tests.simulation.faults import Faults
from tests.simulation.ports import PlainClock, SimBlobs, SimClock, SimCollateral, SimQueue, SimStore
from tests.simulation.scheduler import SECOND, Process
from tests.simulation.writer import Writer

T = TypeVar("T")

VAULT: Final = MemoryVault(Random("platform"))
"""The platform's keys; making them takes longer than a schedule."""

VISIBILITY_S: Final = 6
ANSWER_S: Final = 30
Answer = tuple[T, Sequence[str]]
"""What a handler says, and the keys to wait for if it has nothing to say yet."""


class Life:
    """One life of a host process: its connection to the writer, its ports, its one handler at a time."""

    def __init__(self, faults: Faults, writer: Writer, blobs: MemoryBlobs, name: str) -> None:
        self.process = Process(name)
        self.scheduler = faults.scheduler
        self._commits = MemoryCommits(writer.database)
        self._busy = False
        self._results: dict[int, bool] = {}
        writer.settled.append(self._settle)
        self.process.at_crash.append(lambda: writer.settled.remove(self._settle))
        self.process.at_crash.append(self._commits.close)
        receives = dict.fromkeys((outbox.DISPATCH, outbox.COMPLETION), faults.profile.receives)
        queue = MemoryQueue(PlainClock(self.scheduler), receives, self._commits)
        store = SimStore(faults, writer, self._commits, queue if faults.embedded else None)
        kept = SimBlobs(faults, blobs)
        self.ctx = Context(
            store=store,
            queue=SimQueue(faults, writer, self._commits, queue),
            blobs=kept,
            logs=RecordLogs(store, kept),
            clock=SimClock(faults),
            ids=SeededIds(Random(faults.random.random())),
            vault=VAULT,
            policy=faults.profile.policy,
            collateral=SimCollateral(faults) if faults.profile.sealed else None,
        )

    def handle(self, work: Callable[[Context], T]) -> T:
        """Call a handler while no other runs in this process, and return once what it did or saw is durable."""
        key = f"free {id(self)}"
        while self._busy:
            self.scheduler.wait([key], self.scheduler.mark([key]), SECOND)
        self._busy = True
        refusal: ComputeError | None = None
        result: Any = None
        try:
            result = work(self.ctx)
        except ComputeError as error:
            refusal = error
        finally:
            self._busy = False
        ticket = self._commits.take()
        self.scheduler.wake(key)
        self.durable(ticket)
        if refusal is not None:
            raise refusal
        return result  # type: ignore[no-any-return]

    def alone(self, work: Callable[[Context], T]) -> T:
        """Call the queue for the host itself, which repeats what is lost instead of waiting for it."""
        try:
            return work(self.ctx)
        finally:
            self._commits.take()

    def nap_us(self, queue: str) -> int:
        """How long a consumer may wait for a wake: messages that are hidden now do not wake anybody."""
        hidden = any(message.queue == queue for message in self._commits.database.messages.values())
        return SECOND if hidden else 5 * SECOND

    def durable(self, ticket: int | None) -> None:
        """Wait for a ticket. Raises Unavailable when its writes were lost."""
        if ticket is None:
            return
        self._settle()
        while ticket not in self._results:
            key = f"ticket {id(self)}"
            self.scheduler.wait([key], self.scheduler.mark([key]), SECOND)
        if not self._results.pop(ticket):
            raise Unavailable("the write was lost before it was durable")

    def _settle(self) -> None:
        news = self._commits.news()
        self._results.update(dict.fromkeys(news.durable, True))
        self._results.update(dict.fromkeys(news.failed, False))
        if news.durable or news.failed:
            self.scheduler.wake(f"ticket {id(self)}")


class Host:
    """A process that is started again whenever it crashes."""

    def __init__(
        self, faults: Faults, writer: Writer, blobs: MemoryBlobs, name: str, work: Callable[[Life], None]
    ) -> None:
        self.name = name
        self._faults = faults
        self._scheduler = faults.scheduler
        self._parts = (writer, blobs)
        self._work = work
        self.life: Life | None = None
        self._start()

    def _start(self) -> None:
        life = self.life = Life(self._faults, *self._parts, self.name)
        life.process.at_crash.append(self._crashed)
        self._scheduler.spawn(self.name, lambda: self._work(life), life.process)

    def _crashed(self) -> None:
        self.life = None
        self._scheduler.after(self._faults.random.randrange(3 * SECOND), self._start)


def idle(_: Life) -> None:
    """A front does nothing by itself."""


class Network:
    """From clients and agents to the fronts, which may be down, and may die before they have answered."""

    def __init__(self, faults: Faults, fronts: Sequence[Host]) -> None:
        self._faults = faults
        self._scheduler = faults.scheduler
        self._fronts = fronts
        self._calls = 0

    def call(self, name: str, work: Callable[[Context], Answer[T]], wait_s: float = 0.0) -> T:
        """One request. Raises what the service raises; Unavailable also when no answer comes."""
        self._calls += 1
        lost = self._faults.step(f"http {name}", fallible=True)
        life = self._faults.random.choice(self._fronts).life
        if life is None:
            self._scheduler.pause(self._faults.random.randrange(SECOND // 10))
            raise Unavailable("simulated: connection refused")
        key = f"call {self._calls}"
        box: list[Any] = []

        def answer(value: Any, error: ComputeError | None) -> None:
            if not box:
                box.append((value, error))
                self._scheduler.wake(key)

        def serve() -> None:
            try:
                answer(self._serve(life, work, wait_s), None)
            except ComputeError as error:
                answer(None, error)

        def died() -> None:
            answer(None, Unavailable("simulated: connection reset"))

        life.process.at_crash.append(died)
        self._scheduler.spawn(f"{life.process.name} {name}", serve, life.process)
        patience: int | None = None
        if self._faults.chance(self._faults.profile.abandon, "gives up waiting"):
            patience = self._faults.random.randrange(SECOND)
        while not box:
            if patience is not None:
                self._scheduler.wait([key], self._scheduler.mark([key]), patience)
                answer(None, Unavailable("simulated: no answer in time"))  # the front goes on all the same
                break
            self._scheduler.wait([key], self._scheduler.mark([key]), SECOND * 60)
        life.process.at_crash.remove(died)
        self._faults.reply(lost, name)
        value, error = box[0]
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]

    def _serve(self, life: Life, work: Callable[[Context], Answer[T]], wait_s: float) -> T:
        until = self._scheduler.now_us + round(wait_s * SECOND)
        while True:
            before = self._scheduler.marks()
            value, keys = life.handle(work)
            left = until - self._scheduler.now_us
            if not keys or left <= 0:
                return value
            self._scheduler.wait(keys, [before.get(key, 0) for key in keys], left)


def pump(queue: str) -> Callable[[Life], None]:
    """The host's consumer of a queue: messages are removed once what they caused is durable."""

    def work(life: Life) -> None:
        scheduler, wake = life.scheduler, [queue_wake(queue)]
        while True:
            marks = scheduler.mark(wake)
            try:
                messages = life.alone(lambda ctx: ctx.queue.receive(queue, limit=3, visibility_s=VISIBILITY_S))
                consume(life, queue, messages)
            except Unavailable:
                messages = []
                scheduler.pause(SECOND // 2)
            if not messages:
                scheduler.wait(wake, marks, life.nap_us(queue))

    return work


def consume(life: Life, queue: str, messages: Sequence[Message]) -> None:
    """Handle a batch; acknowledge what succeeded, after it is durable, and give back the rest."""
    if not messages:
        return
    failed: list[Message] = []

    def handler(ctx: Context) -> None:
        found = handle(ctx, queue, [str(message.body["job"]) for message in messages])
        failed.extend(message for message in messages if isinstance(found[message.body["job"]], ComputeError))

    life.handle(handler)
    for message in failed:
        life.alone(lambda ctx, message=message: ctx.queue.nack(message, delay_s=1))  # type: ignore[misc]
    life.alone(lambda ctx: ctx.queue.ack([message for message in messages if message not in failed]))


def handle(ctx: Context, queue: str, jobs: Sequence[str]) -> Mapping[str, object]:
    """What the functions ``dispatch`` and ``completion`` do with a batch."""
    if queue == outbox.DISPATCH:
        return place.place(ctx, jobs)
    found = complete.close(ctx, jobs)
    with suppress(ComputeError):
        log.sequence(ctx)
    return found


def ticker(life: Life) -> None:
    """The schedule: the reconciler once a second."""
    while True:
        with suppress(ComputeError):
            life.handle(reconcile.reconcile)
        life.scheduler.pause(SECOND)
