"""Agents lease placed jobs, keep their leases by heartbeats, and give back what they cannot finish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from hanzo_compute.errors import FieldProblem, InvalidRequest, NotFound, StaleFence, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.spec import program_blob
from hanzo_compute.model.states import State
from hanzo_compute.ports import ABSENT, Beat, Body, Check, Lease, LogEntry, PresignedUrl, Put, Want, WriteConflict
from hanzo_compute.services import agents, pricing, records
from hanzo_compute.services.context import Context
from hanzo_compute.services.submit import stored_spec


@dataclass(frozen=True, slots=True)
class Claim:
    """What an agent says that it holds: an attempt of a job, leased with a credential of ``lessee``."""

    job: str
    attempt: int
    lessee: str

    def holds(self, job: Job) -> bool:
        """Whether it does: the fence is the attempt number."""
        return job.state is State.RUNNING and job.attempt == self.attempt and job.lessee == self.lessee

    def stale(self, job: Job) -> StaleFence:
        """The error when it does not."""
        return StaleFence(
            f"attempt {self.attempt} does not hold job {job.id}: it is {job.state}, attempt {job.attempt}",
            hint="discard this attempt's work",
            job=job.id,
            state=job.state.value,
            attempt=job.attempt,
        )


def acquire(ctx: Context, want: Want, lessee: str) -> list[Lease]:
    """Up to ``limit`` of the jobs that were placed first; each becomes a new attempt, whose number is its fence.

    Raises:
        PermissionDenied: the agent's name has another key.
    """
    agents.introduce(ctx, lessee, want.agent, want.key)
    pool, limit = want.pool, want.limit
    partition = keys.pool_partition(pool)
    # A few more than asked for: other agents look at the same head of the line.
    found = {
        str(record.body["id"]): record for _, record in ctx.store.query_index(keys.BY_POOL, partition, limit=limit + 8)
    }
    # Before anything is written: what is written in this call is read through the writer.
    specs = {job_id: stored_spec(ctx, job_id) for job_id in found}
    taken: set[str] = set()
    take = partial(_take, ctx, want, lessee, taken)
    leases: list[Lease] = []
    first = list(found)[:limit]
    if len(first) > 1:
        together = records.change_together(ctx, dict.fromkeys(first, take), read=found)
        leases = [_lease(ctx, job, specs[job_id]) for job_id, job in together.items() if job_id in taken]
    for job_id, record in found.items():
        if len(leases) == limit:
            break
        if job_id in {lease.job for lease in leases}:
            continue
        try:
            job = records.change(ctx, job_id, take, read=record)
        except NotFound:
            continue
        except Unavailable:
            if not leases:
                raise
            break  # those that are taken must reach the agent, or each of them lapses
        if job_id in taken:
            leases.append(_lease(ctx, job, specs[job_id]))
    return leases


def _take(ctx: Context, want: Want, lessee: str, taken: set[str], job: Job) -> records.Change | None:
    """Move a placed job to this agent, and note that in ``taken``; one that has its deadline behind it expires."""
    taken.discard(job.id)
    now = ctx.clock.now_ms()
    if job.state is not State.PLACED or job.pool != want.pool:
        return None
    if job.deadline_ms is not None and now >= job.deadline_ms:
        reason = "the deadline passed before it could run"
        return records.finish(ctx, job, State.EXPIRED, reason=reason, category=Category.DEADLINE)
    taken.add(job.id)
    until = now + ctx.policy.lease_ms
    running = replace(
        job,
        state=State.RUNNING,
        attempt=job.attempt + 1,
        agent=want.agent,
        agent_key=want.key,
        lessee=lessee,
        started_ms=now,
        lease_until_ms=until,
        due_ms=_running_due(ctx, job, until),
        delivered=0,
        evidence=None,
    )
    attempt = {"attempt": running.attempt, "agent": want.agent, "pool": want.pool, "started_ms": now}
    return records.Change(
        running,
        "running",
        {"agent": want.agent},
        operations=[Put(keys.attempt(job.id, running.attempt), attempt, expect=ABSENT)],
    )


def _lease(ctx: Context, job: Job, spec: Body) -> Lease:
    timeout_ms, by_deadline = job.timeout_s * 1000, False
    if job.deadline_ms is not None and job.deadline_ms - ctx.clock.now_ms() < timeout_ms:
        timeout_ms, by_deadline = max(1, job.deadline_ms - ctx.clock.now_ms()), True
    module = program_blob(spec["source"])
    blob = spec.get("input", {}).get("blob")
    ttl_s = ctx.policy.lease_ms // 1000 + 60
    return Lease(
        job=job.id,
        attempt=job.attempt,
        runtime=job.runtime,
        spec=spec,
        lease_ms=ctx.policy.lease_ms,
        timeout_ms=timeout_ms,
        timeout_is_deadline=by_deadline,
        module_url=ctx.blobs.presign_get(job.tenant, module, ttl_s=ttl_s).url if module else None,
        input_url=ctx.blobs.presign_get(job.tenant, blob, ttl_s=ttl_s).url if blob else None,
        follow=_followed(ctx, job),
        terms=pricing.terms_of(ctx, job).as_json(),
        delivered_tier=job.delivered,
        evidence=job.evidence,
        call=(job.origin or {}).get("invocation", job.id),
    )


def again(ctx: Context, claim: Claim) -> Lease:
    """The lease of an attempt that this agent holds, for one that was started anew meanwhile.

    Raises:
        StaleFence: it does not hold it any more.
    """
    job = held(ctx, claim)
    return _lease(ctx, job, stored_spec(ctx, job.id))


def held(ctx: Context, claim: Claim) -> Job:
    """The job, if the claim holds it now.

    Raises:
        StaleFence: another attempt does, or none.
    """
    job = records.find(ctx, claim.job)
    if not claim.holds(job):  # a stale read may say so wrongly: the lease itself may be that new
        job = records.find(ctx, claim.job, fresh=True)
    if not claim.holds(job):
        raise claim.stale(job)
    return job


def heartbeat(ctx: Context, claim: Claim) -> Beat:
    """Renew the lease if a third of it has passed; says whether to stop, and whether the log is followed.

    Raises:
        StaleFence: the attempt lost its job.
    """
    job = held(ctx, claim)
    now = ctx.clock.now_ms()
    if (job.lease_until_ms or 0) - now < ctx.policy.lease_ms * 2 // 3:

        def decide(job: Job) -> records.Change | None:
            if not claim.holds(job):
                raise claim.stale(job)
            until = now + ctx.policy.lease_ms
            return records.Change(replace(job, lease_until_ms=until, due_ms=_running_due(ctx, job, until)))

        job = records.change(ctx, claim.job, decide)
    return Beat(job.cancel, _followed(ctx, job))


def append_logs(ctx: Context, claim: Claim, seq: int, entries: Sequence[LogEntry]) -> None:
    """Append a log chunk of a running attempt.

    Raises:
        StaleFence: the attempt lost its job.
        InvalidRequest: the chunk is over its bound.
    """
    check_chunk(seq, entries)
    for attempt in range(records.TRIES):
        record = ctx.store.get(keys.job(claim.job), fresh=attempt > 0)
        if record is None or not claim.holds(job := Job.from_record(record.body)):
            if attempt:
                raise records.not_found(claim.job) if record is None else claim.stale(job)
            continue  # a stale read may say so wrongly: the lease itself may be that new
        try:
            # An attempt that has lost its job adds nothing to the log: who follows may have read past that place.
            guard = [Check(record.key, record.rev)]
            ctx.logs.append(job.tenant, job.id, job.attempt, seq, entries, guard=guard)
        except WriteConflict:
            continue
        return
    raise Unavailable(f"job {claim.job} is changing too fast", hint="try again", retry_after_s=1)


def check_chunk(seq: int, entries: Sequence[LogEntry]) -> None:
    """Refuse a chunk over its bounds."""
    if not 1 <= seq <= bounds.LOG_CHUNKS_MAX:
        problem = FieldProblem("seq", f"must be between 1 and {bounds.LOG_CHUNKS_MAX}")
        raise InvalidRequest(f"seq {problem.message}", fields=[problem])
    if sum(len(entry.text) for entry in entries) > bounds.LOG_CHUNK_MAX:
        problem = FieldProblem("entries", f"are over {bounds.LOG_CHUNK_MAX} characters together")
        raise InvalidRequest(f"entries {problem.message}", fields=[problem])


def presign_output(ctx: Context, claim: Claim, blob: str, size: int) -> PresignedUrl | None:
    """Where to put an output of a running attempt; None when the tenant has these bytes already.

    Raises:
        StaleFence: the attempt lost its job.
    """
    job = held(ctx, claim)
    if ctx.blobs.size(job.tenant, blob) == size:
        return None
    return ctx.blobs.presign_put(job.tenant, blob, size)


def release(ctx: Context, claim: Claim, reason: str) -> Job:
    """Give an attempt back unfinished: the job goes to its next attempt at once, and no retry is used up.

    Raises:
        StaleFence: the attempt lost its job.
    """

    def decide(job: Job) -> records.Change | None:
        if not claim.holds(job):
            raise claim.stale(job)
        if job.cancel is not None:
            return stopped(ctx, job)
        return records.retry(ctx, job, delay_ms=0, event="released", data={"reason": reason})

    return records.change(ctx, claim.job, decide)


def lapsed(ctx: Context, job: Job, reason: str) -> records.Change:
    """The change for a running job whose attempt was lost by the platform, not by the program."""
    if job.cancel is not None:
        return stopped(ctx, job)
    lapses = job.lapses + 1
    if lapses >= ctx.policy.max_lapses:
        why = f"the platform lost {lapses} attempts in a row; the last: {reason}"
        return records.finish(ctx, job, State.DEAD, reason=why, lapses=lapses, category=Category.PLATFORM)
    delay_ms = ctx.policy.lapse_backoff_ms * 2 ** (lapses - 1)
    return records.retry(ctx, job, delay_ms=delay_ms, event="lapsed", data={"reason": reason}, lapses=lapses)


def stopped(ctx: Context, job: Job) -> records.Change:
    """The change for a running job that was asked to stop and whose agent did not hand in an outcome."""
    if job.cancel == "deadline":
        reason = "the deadline passed while it ran"
        return records.finish(ctx, job, State.EXPIRED, reason=reason, category=Category.DEADLINE)
    reason = "cancelled while it ran"
    return records.finish(ctx, job, State.CANCELLED, reason=reason, category=Category.CANCELLED)


def _followed(ctx: Context, job: Job) -> bool:
    return (job.followed_until_ms or 0) > ctx.clock.now_ms()


def _running_due(ctx: Context, job: Job, lease_until_ms: int) -> int:
    if job.deadline_ms is None or job.cancel is not None:
        return lease_until_ms
    return min(lease_until_ms, job.deadline_ms + ctx.policy.deadline_grace_ms)
