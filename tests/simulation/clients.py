"""What tenants do: submit, perhaps twice at once, cancel, follow, run again, and read the end again and again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any, Final, TypeVar

from hanzo_compute.adapters.memory import MemoryBlobs
from hanzo_compute.errors import (
    ComputeError,
    Conflict,
    InvalidSpec,
    NoCapacity,
    NotFound,
    RateLimited,
    Unavailable,
)
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.schedule import ScheduleSpec
from hanzo_compute.model.spec import JobSpec, format_time
from hanzo_compute.model.states import State
from hanzo_compute.ports import JobStore, Operation, Send
from hanzo_compute.services import cancel, read, schedules, submit
from hanzo_compute.services.context import Context
from tests.simulation import entries, functions, invokers, sealing
from tests.simulation.host import Answer, Network
from tests.simulation.invariants import Scheduled, Watch, require
from tests.simulation.profiles import Profile
from tests.simulation.scheduler import SECOND, Scheduler

T = TypeVar("T")

TENANTS: Final = ("acme", "globex")
ENDINGS: Final = ("ok", "ok", "ok", "exit", "exit", "trap", "invalid_program", "timeout")


class Clients:
    """All tenants of a schedule. ``busy`` counts their tasks."""

    def __init__(
        self,
        scheduler: Scheduler,
        random: Random,
        network: Network,
        watch: Watch,
        profile: Profile,
        blobs: MemoryBlobs,
    ) -> None:
        self._blobs = blobs
        self._scheduler = scheduler
        self._random = random
        self._network = network
        self._watch = watch
        self._profile = profile
        self.busy = 0
        self._granted: set[str] = set()
        """Tenants that have the function with entries."""

    def start(self) -> None:
        """Start the tenants' tasks."""
        for number in range(self._random.randint(*self._profile.jobs)):
            tenant = self._random.choice(TENANTS)
            keyed = self._random.random() < 0.7
            request = f"{'keyed' if keyed else 'unkeyed'}-{number}"
            spec = self._spec(tenant, request)
            delay = self._random.randrange(6 * SECOND)
            twins = keyed and self._random.random() < self._profile.twins
            for _ in range(1 + twins):
                self._spawn(f"client {number}", delay, lambda t=tenant, r=request, s=spec: self._submit(t, r, s))  # type: ignore[misc]
        for tenant in TENANTS if self._profile.counting else ():
            self._spawn(f"grant {tenant}", 0, lambda t=tenant: self._grant(t))  # type: ignore[misc]
        for number in range(self._profile.deployers):
            tenant, delay = TENANTS[number % 3 % 2], self._random.randrange(3 * SECOND)
            self._spawn(f"deployer {number}", delay, lambda t=tenant: self._deployer(t))  # type: ignore[misc]
        for number in range(self._profile.invokers):
            delay = self._random.randrange(3 * SECOND)
            self._spawn(f"reader {number}", delay, self._reader)
        for tenant in TENANTS if self._profile.sealed else ():
            delay = self._random.randrange(SECOND)
            self._spawn(f"policy {tenant}", delay, lambda t=tenant: self._govern(t))  # type: ignore[misc]
        for number in range(self._profile.schedules):
            tenant, name = self._random.choice(TENANTS), f"schedule-{number}"
            jobs = [self._spec(tenant, f"{name}-{job}") for job in range(self._random.randint(1, 4))]
            delay = self._random.randrange(6 * SECOND)
            self._spawn(name, delay, lambda t=tenant, n=name, j=jobs: self._schedule(t, n, j))  # type: ignore[misc]

    def _reader(self) -> None:
        invokers.read(self._random, self._scheduler, self._call, self._watch.invocations)

    def _deployer(self, tenant: str) -> None:
        functions.work(self._random, tenant, self._call, self._watch.functions)

    def _grant(self, tenant: str) -> None:
        self._call("deploy", lambda ctx: (entries.deploy(ctx, tenant), ()))
        self._granted.add(tenant)

    def _govern(self, tenant: str) -> None:
        sealing.govern(self._random, self._scheduler, tenant, self._call)

    def _schedule(self, tenant: str, name: str, jobs: list[JobSpec]) -> None:
        """Put a schedule, let it be, see that nothing of it is due any more, and delete it."""
        spec = ScheduleSpec(cron="* * * * *", jobs=jobs, missed="all")
        self._call(f"put {name}", lambda ctx: (schedules.put(ctx, tenant, name, spec), ()))
        requests = [job.env["REQUEST"] for job in jobs]
        known = self._watch.schedules[tenant, name] = Scheduled(requests, self._scheduler.now_ms)
        self._scheduler.pause(self._random.randrange(60 * SECOND, 140 * SECOND))
        while True:
            now = self._scheduler.now_ms
            shown = self._call(f"get {name}", lambda ctx: (schedules.get(ctx, tenant, name), ()))
            if shown["next_at"] > format_time(now) and "submitting" not in shown:
                break
            self._scheduler.pause(SECOND)
        known.to_ms = now
        with suppress(NotFound):  # the answer to the call before was lost
            self._call(f"delete {name}", lambda ctx: (schedules.delete(ctx, tenant, name), ()))

    def _spawn(self, name: str, delay_us: int, body: Callable[[], None]) -> None:
        self.busy += 1

        def task() -> None:
            self._scheduler.pause(delay_us)
            try:
                body()
            finally:
                self.busy -= 1

        self._scheduler.spawn(name, task)

    def _spec(self, tenant: str, request: str) -> JobSpec:
        random = self._random
        plans = []
        for _ in range(random.randint(1, 3)):
            seconds = random.choice((0.01, 0.01, 0.1, 0.5, 2.0, 4.0, 9.0, 20.0)) * random.uniform(0.8, 1.2)
            size = 7000 if random.random() < 0.1 else 10
            stdout = 20_000 if random.random() < 0.1 else random.randrange(20)
            plans.append((seconds, random.choice(ENDINGS), random.choice((0, 1, 5, 12)), size, stdout))
        body: dict[str, Any] = {
            "source": {"code": "pass", "language": "python"},
            "env": {"REQUEST": request, "PLAN": json.dumps(plans)},
            "retry": {"max_attempts": random.randint(1, 3), "backoff_s": random.randint(1, 2)},
            "resources": {"timeout_s": random.choice((3, 15, 60))},
            "labels": {"request": request},
        }
        if random.random() < 0.3:
            body["input"] = {"blob": self._blobs.put(tenant, request.encode())}
        if random.random() < 0.3:
            body["source"] = {"module": self._blobs.put(tenant, b"module of " + request.encode())}
        if self._profile.made_of_functions and random.random() < self._profile.made_of_functions:
            body["source"] = {"function": random.choice(("f", "f", "g", "f@1", "f@canary"))}
        if self._profile.counting and random.random() < self._profile.counting:
            body["source"] = {"function": entries.FUNCTION}
        if random.random() < self._profile.deadlines:
            body["deadline"] = format_time(self._scheduler.now_ms + random.randrange(1_000, 30_000))
        # Whoever has to submit again without a key may have a job that it never gives the key of.
        if self._profile.sealed and request.startswith("keyed") and random.random() < self._profile.sealed:
            body.pop("input", None)
            body |= self._watch.sealed.spec(random, self._blobs, tenant, request)
        return parse_spec(body)

    def _call(self, name: str, work: Callable[[Context], Answer[T]], wait_s: float = 0.0) -> T:
        while True:
            try:
                return self._network.call(name, work, wait_s)
            except Unavailable:
                self._scheduler.pause(self._random.randrange(SECOND // 5, 2 * SECOND))
            except (RateLimited, NoCapacity) as refusal:
                self._watch.refused += 1
                self._scheduler.pause(refusal.data["retry_after_s"] * SECOND)

    def _submit(self, tenant: str, request: str, spec: JobSpec) -> None:
        keyed = request.startswith("keyed")
        while spec.source.function == entries.FUNCTION and tenant not in self._granted:
            self._scheduler.pause(SECOND)

        def work(ctx: Context) -> Answer[submit.Submitted]:
            key = request if keyed else None
            return _admission(ctx, lambda ctx: submit.submit(ctx, tenant, spec, idempotency_key=key)), ()

        try:
            done = self._call("submit", work)
        except InvalidSpec:
            return  # its deadline passed before it was accepted
        self._give_key(tenant, done.job)
        self._accepted(tenant, request, done.job.id, keyed=keyed)

    def _accepted(self, tenant: str, request: str, job_id: str, *, keyed: bool) -> None:
        first = job_id not in self._watch.accepted
        self._watch.told(job_id, tenant, request, keyed=keyed)
        random = self._random
        if random.random() < self._profile.cancels:
            self._spawn(f"cancel {job_id}", random.randrange(8 * SECOND), lambda: self._cancel(tenant, job_id))
        if first and random.random() < self._profile.follows:
            self._spawn(f"follow {job_id}", random.randrange(3 * SECOND), lambda: self._follow(tenant, job_id))
        state = self._watch_end(tenant, job_id)
        self._foreign(tenant, request, job_id)
        if first and state is State.DEAD:
            self._again(tenant, request, job_id, "redrive")
        elif first and "/" not in request and random.random() < 0.1:
            self._again(tenant, request, job_id, "rerun")

    def _again(self, tenant: str, request: str, job_id: str, kind: str) -> None:
        def work(ctx: Context) -> Answer[submit.Submitted]:
            key = f"{kind} {job_id}"
            call = lambda ctx: submit.resubmit(ctx, tenant, job_id, kind=kind, idempotency_key=key)  # noqa: E731
            return _admission(ctx, call), ()

        done = self._call(kind, work)
        require(done.job.origin == {"kind": kind, "job": job_id}, f"{done.job.id} has origin {done.job.origin}")
        self._watch.told(done.job.id, tenant, f"{request}/{kind} of {job_id}", keyed=True)
        self._give_key(tenant, done.job)
        self._watch_end(tenant, done.job.id)

    def _give_key(self, tenant: str, job: Job) -> None:
        """To the platform, at once or later, once or again; or to each runner; or both."""
        if job.data_key is None:
            return
        random, key = self._random, self._watch.sealed.known[job.data_key]
        other = TENANTS[1 - TENANTS.index(tenant)]
        how = random.choices(("deposit", "entrust", "both"), (5, 4, 1))[0]
        if how != "entrust":
            for _ in range(random.choice((1, 1, 1, 2))):
                delay = random.randrange(random.choice((1, 3, 25)) * SECOND)
                give = lambda: sealing.deposit(random, tenant, other, job.id, key, self._call)  # noqa: E731
                self._spawn(f"key {job.id}", delay, give)
        if how != "deposit":
            give = lambda: sealing.entrust(random, self._scheduler, tenant, job.id, key, self._call)  # noqa: E731
            self._spawn(f"entrust {job.id}", random.randrange(3 * SECOND), give)

    def _cancel(self, tenant: str, job_id: str) -> None:
        self._watch.cancels.add(job_id)
        try:
            view = self._call("cancel", lambda ctx: (cancel.cancel(ctx, tenant, job_id).view(), ()))
        except Conflict:
            return
        self._watch.accepted[job_id].cancelled = True
        asked = view["state"] == "cancelled" or view.get("cancel_requested") is not None
        require(asked, f"{job_id}: cancel was answered with {view}")
        self._watch.saw(job_id, view)

    def _follow(self, tenant: str, job_id: str) -> None:
        texts: list[str] = []
        cursor, done = "", False
        while not done:

            def work(ctx: Context, cursor: str = cursor) -> Answer[read.LogRead]:
                found = read.logs(ctx, tenant, job_id, cursor=cursor, follow=True)
                waiting = not found.page.entries and not found.done
                return found, (keys.log_partition(job_id), keys.job_partition(job_id)) if waiting else ()

            page = self._call(f"logs {job_id}", work, 20.0)
            texts.extend(entry.text for entry in page.page.entries)
            cursor, done = page.page.cursor, page.done
        self._watch.accepted[job_id].followed = texts

    def _watch_end(self, tenant: str, job_id: str) -> State:
        seen: str | None = None
        while True:

            def work(ctx: Context, seen: str | None = seen) -> Answer[dict[str, Any]]:
                view = read.job(ctx, tenant, job_id)
                waiting = view["state"] == seen and not State(view["state"]).terminal
                return view, (keys.job_partition(job_id),) if waiting else ()

            view = self._call(f"show {job_id}", work, 20.0)
            seen = view["state"]
            self._watch.saw(job_id, _plain(view))
            if State(view["state"]).terminal:
                break
        for _ in range(self._random.choice((1, 1, 2)) if "data_key" in view["spec"] else 0):  # it comes too late
            key = self._watch.sealed.known[view["spec"]["data_key"]]
            sealing.deposit(self._random, tenant, TENANTS[1 - TENANTS.index(tenant)], job_id, key, self._call)
        self._scheduler.pause(self._random.randrange(3 * SECOND))
        result = self._ended(f"result {job_id}", lambda ctx: (read.result(ctx, tenant, job_id), ()))
        require(result["state"] == view["state"], f"{job_id}: {view['state']}, its result says {result['state']}")
        require(result["outcome"] == view.get("outcome"), f"{job_id}: two outcomes")
        outputs = self._ended(f"outputs {job_id}", lambda ctx: (read.outputs(ctx, tenant, job_id), ()))
        sizes = [output["size"] for output in (result["outcome"] or {}).get("outputs", [])]
        require([item["size"] for item in outputs.items] == sizes, f"{job_id}: its outputs are {outputs.items}")
        events = self._call(
            f"events {job_id}", lambda ctx: (read.events(ctx, tenant, job_id, cursor="", limit=100), ())
        )
        told = events.items[-1]["type"] == view["state"]
        require(told or self._profile.stale, f"{job_id}: {view['state']}, the events say otherwise")
        return State(view["state"])

    def _ended(self, name: str, work: Callable[[Context], Answer[T]]) -> T:
        """Ask what can be told of a job that has ended, as this client knows."""
        while True:
            try:
                return self._call(name, work)
            except Conflict:
                require(self._profile.stale, f"{name}: refused although the job had ended")
                self._scheduler.pause(SECOND)  # the other front may be a moment behind

    def _foreign(self, tenant: str, request: str, job_id: str) -> None:
        other = TENANTS[1 - TENANTS.index(tenant)]
        try:
            self._call("spy", lambda ctx: (read.job(ctx, other, job_id), ()))
        except NotFound:
            label = f"request={request.partition('/')[0]}"
            for given in (None, label):

                def work(ctx: Context, given: str | None = given) -> Answer[read.Page]:
                    return read.jobs(ctx, other, state=None, label=given, cursor="", limit=100), ()

                listed = self._call("list", work)
                require(all(item["id"] != job_id for item in listed.items), f"{other} lists {job_id}")
            own = self._call(
                "list", lambda ctx: (read.jobs(ctx, tenant, state=None, label=label, cursor="", limit=100), ())
            )
            found = any(item["id"] == job_id for item in own.items)
            require(found or self._profile.stale, f"{tenant} cannot find {job_id} by its label")
        except ComputeError as error:
            require(False, f"{other} asked for {job_id} and got {error}")
        else:
            require(False, f"{other} can read {job_id} of {tenant}")


class _Written:
    """A store that notes whether anything was sent to be written."""

    def __init__(self, inner: JobStore) -> None:
        self._inner = inner
        self.written = False

    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        self.written = True
        self._inner.transact(operations, sends)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _admission(ctx: Context, call: Callable[[Context], submit.Submitted]) -> submit.Submitted:
    """Submit; a refusal for want of room must have left nothing behind."""
    store = _Written(ctx.store)
    try:
        return call(replace(ctx, store=store))
    except (RateLimited, NoCapacity):
        require(not store.written, "a job was refused for want of room after something was written")
        raise


def _plain(view: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in view.items() if name not in ("spec", "outcome")}
