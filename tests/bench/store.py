"""What the size of the store does to each call: 1,000, 10,000 and 100,000 jobs.

Method. Three writers with a store each, filled with jobs that have ended, in the form in which the services leave them:
ten failed and have a label of their own, all others succeeded. In each round each call of the services is timed 40
times on each store, to the end of the page or to the durable write, so that what disturbs the machine disturbs all
sizes. "Deep" starts at a cursor in the middle of all jobs. The reconciler runs with nothing due, and with 100 jobs due,
which it repairs. In a queue of its own wait as many messages as there are jobs; ten are received and acknowledged. The
last column compares the medians at the greatest and the least size, round by round: flat is 1.

What it does not show. HTTP; several tenants; calls that compete; a database larger than the machine's memory: at
100,000 jobs all of it is in the page cache.
"""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from hanzo_compute.adapters.local import schema
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.states import State
from hanzo_compute.services import cancel, complete, outbox, read, reconcile, submit
from hanzo_compute.wiring import Container
from tests.bench.options import Options
from tests.bench.report import Report, Target, number, percentile, ratios
from tests.bench.servers import container, durable
from tests.bench.store_fill import RARE, SPEC, fill
from tests.support.writer import WriterProcess

TENANT = "default"
LIMIT = 50
DUE = 100
BACKLOG = "backlog"
FLAT = 1.5
"""Median at the greatest size over that at the least, at most."""


@dataclass(frozen=True)
class Later:
    """The system's clock, some milliseconds ahead."""

    ahead_ms: int

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass
class Store:
    """A filled store; ``rounds`` has the milliseconds of each call, round by round."""

    home: Path
    ctx: Container
    ids: list[str]
    rounds: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    bytes_per_job: float = 0.0

    def time(self, name: str, call: Callable[[], object], times: int) -> None:
        """Time so many calls; one before them is not counted."""
        call()
        found = []
        for _ in range(times):
            begun = time.perf_counter()
            call()
            found.append((time.perf_counter() - begun) * 1000)
        self.rounds[name].append(found)

    def median(self, name: str) -> list[float]:
        """Of each round."""
        return [percentile(found, 0.5) for found in self.rounds[name]]

    def all(self, name: str) -> list[float]:
        """Every call of every round."""
        return [each for found in self.rounds[name] for each in found]


@contextmanager
def filled(home: Path, size: int) -> Iterator[Store]:
    """A store of so many jobs, and its writer."""
    home.mkdir(mode=0o700)
    with WriterProcess(home):
        ctx = container(home)
        assert isinstance(ctx.commits, WriterClient)
        try:
            store = Store(home, ctx, fill(ctx, TENANT, size))
            for _ in range(size):
                ctx.queue.send(BACKLOG, {})
            durable(ctx)
            store.bytes_per_job = database_bytes(home) / size
            yield store
        finally:
            ctx.commits.close()


def database_bytes(home: Path) -> int:
    """Size of the database when its log has been moved into it."""
    with closing(schema.open_for_reading(schema.path_of(home))) as db:
        found: int = db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]
        return found


def reads(store: Store, times: int) -> None:
    """Calls that change nothing."""
    ctx, ids = store.ctx, store.ids
    first = read.jobs(ctx, TENANT, state=None, label=None, cursor="", limit=LIMIT)
    assert first.next_cursor is not None
    middle = read.encode_cursor(ids[len(ids) // 2])
    some = cycle(ids[:: max(1, len(ids) // 1000)])

    def page(cursor: str = "", state: State | None = None, label: str | None = None, items: int = LIMIT) -> None:
        found = read.jobs(ctx, TENANT, state=state, label=label, cursor=cursor, limit=LIMIT)
        assert len(found.items) == items

    calls: dict[str, Callable[[], object]] = {
        "list, first page": page,
        "list, deep page": lambda: page(middle),
        "list by state, first page": lambda: page(state=State.SUCCEEDED),
        "list by state, deep page": lambda: page(middle, state=State.SUCCEEDED),
        "list by a rare state": lambda: page(state=State.FAILED, items=RARE),
        "list by label, first page": lambda: page(label="common=1"),
        "list by label, deep page": lambda: page(middle, label="common=1"),
        "list by a rare label": lambda: page(label="rare=1", items=RARE),
        "get": lambda: read.job(ctx, TENANT, next(some)),
    }
    for name, call in calls.items():
        store.time(name, call, times)


def writes(store: Store, times: int, round_number: int) -> None:
    """Submit, cancel and reconcile; the jobs come to rest at the end."""
    ctx, spec = store.ctx, parse_spec(SPEC)
    made: list[str] = []

    def one() -> None:
        made.append(submit.submit(ctx, TENANT, spec).job.id)

    def then_durable(call: Callable[[], object]) -> None:
        call()
        durable(ctx)

    store.time("submit", lambda: then_durable(one), times)
    waiting = iter(list(made))
    store.time("cancel", lambda: then_durable(lambda: cancel.cancel(ctx, TENANT, next(waiting))), times)
    rest(ctx, made)
    store.time("reconcile, nothing due", lambda: reconcile.reconcile(ctx), times)
    made.clear()
    for _ in range(DUE):
        one()
    durable(ctx)
    # Each round looks from later than the one before, whose jobs it must not find again.
    later = dataclasses.replace(ctx, clock=Later((round_number + 1) * 3_600_000))
    begun = time.perf_counter()
    repaired = reconcile.reconcile(later)
    durable(ctx)
    store.rounds[f"reconcile, {DUE} due"].append([(time.perf_counter() - begun) * 1000])
    assert repaired == {"dispatch_resent": DUE}, repaired
    for job in made:
        cancel.cancel(ctx, TENANT, job)
    rest(ctx, made)


def messages(store: Store, times: int) -> None:
    """Ten of the messages that wait, whose number stays the same."""
    queue = store.ctx.queue

    def ten() -> None:
        received = queue.receive(BACKLOG, limit=10)
        assert len(received) == 10
        queue.ack(received)

    store.time("receive and acknowledge 10", ten, times)
    for _ in range((times + 1) * 10):
        queue.send(BACKLOG, {})
    durable(store.ctx)


def rest(ctx: Container, jobs: list[str]) -> None:
    """What the pump does: close what has ended, and take the messages."""
    complete.close(ctx, jobs)
    for queue in (outbox.DISPATCH, outbox.COMPLETION):
        while received := ctx.queue.receive(queue, limit=10):
            ctx.queue.ack(received)
    durable(ctx)


def run(options: Options) -> Report:
    """Three stores, and the calls on each in turn."""
    sizes = (200, 300, 400) if options.smoke else (1_000, 10_000, 100_000)
    folder = options.folder("store")
    with ExitStack() as stack:
        stores = []
        for size in sizes:
            stores.append(stack.enter_context(filled(folder / str(size), size)))
            options.say(f"a store of {size} jobs is filled")
        for number in range(options.rounds):
            for store in stores:
                reads(store, options.size(40, 2))
                writes(store, options.size(40, 2), number)
                messages(store, options.size(40, 2))
    return report(stores)


def report(stores: list[Store]) -> Report:
    """Medians and p99 by size."""
    sizes = [len(store.ids) for store in stores]
    columns = ["ms: median / p99", *(f"{size:,} jobs" for size in sizes), f"{sizes[-1]:,} / {sizes[0]:,}"]
    made = Report("Calls by the number of jobs in the store", columns)
    growths = {}
    for call in stores[0].rounds:
        cells = [
            f"{number(percentile(store.all(call), 0.5))} / {number(percentile(store.all(call), 0.99))}"
            for store in stores
        ]
        growths[call] = ratios(stores[-1].median(call), stores[0].median(call))
        made.rows.append([call, *cells, growths[call]])
    worst = max(growths, key=lambda call: growths[call].median)
    made.targets.append(Target(f"greatest growth of a median ({worst})", growths[worst], FLAT))
    space = ", ".join(f"{number(store.bytes_per_job)} at {len(store.ids):,} jobs" for store in stores)
    made.notes.append(f"bytes of the database per job, seven or eight records and a message each: {space}")
    return made
