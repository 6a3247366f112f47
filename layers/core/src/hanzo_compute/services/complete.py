"""An attempt ends: exactly one outcome is accepted, and what follows from it is in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hanzo_compute.errors import ComputeError, Conflict, FieldProblem, InvalidRequest, NotFound
from hanzo_compute.model import keys, statement
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import FINAL_STATE, RETRIED, Category, Outcome
from hanzo_compute.model.spec import Retry, code_digest, input_digest
from hanzo_compute.model.statement import Signed, Stated, Subject
from hanzo_compute.model.states import State
from hanzo_compute.ports import Body, Delete, LogEntry, Operation, Put, Touched, WriteConflict
from hanzo_compute.services import grants, leaves, observe, pricing, records
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim, append_logs, check_chunk, lapsed, stopped
from hanzo_compute.services.submit import stored_spec

CONFLICTS_MAX: Final = 16
"""An attempt whose entries were changed meanwhile has had no effect, and is followed by another; so often at most."""
CONFLICT_MS: Final = 250
"""The wait before the second of these; it doubles."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What an attempt came to, with the last chunk of its log."""

    claim: Claim
    outcome: Outcome
    log_seq: int = 0
    entries: Sequence[LogEntry] = ()
    signed: Signed | None = None
    touched: Sequence[Touched] | None = None


def complete_all(ctx: Context, ended: Sequence[Ended]) -> list[Job | ComputeError]:
    """:func:`complete` for several attempts, in one transaction if nothing came in between; each has its own error."""
    decisions = {each.claim.job: _accept(ctx, each, list(each.entries)) for each in ended}
    # Two attempts of one job can only be looked at in turn; nor can two that may have used the same entries.
    together = 1 < len(decisions) == len(ended) and all(each.touched is None for each in ended)
    done = records.change_together(ctx, decisions) if together else {}
    return [done[each.claim.job] if each.claim.job in done else _alone(ctx, each) for each in ended]


def _alone(ctx: Context, each: Ended) -> Job | ComputeError:
    try:
        return complete(ctx, each)
    except ComputeError as error:
        return error


def complete(ctx: Context, ended: Ended) -> Job:
    """Accept the outcome of the attempt that holds the job. Handing in the accepted outcome again is answered alike.

    Raises:
        StaleFence: the attempt does not hold the job; nothing of what it sent is kept.
        InvalidRequest: an output refers to a blob that was not uploaded, or the statement is not signed.
    """
    claim, log_seq, tail = ended.claim, ended.log_seq, list(ended.entries)
    if tail:
        check_chunk(log_seq, tail)
    decide = _accept(ctx, ended, tail)
    try:
        return records.change(ctx, claim.job, decide)
    except WriteConflict as conflict:
        if any(keys.is_kv(key) for key in conflict.current):
            return records.change(ctx, claim.job, _overtaken(ctx, claim))
        # The agent had sent this chunk before, and did not hear that it arrived. Refused if it is another one.
        append_logs(ctx, claim, log_seq, tail)
        tail.clear()
        try:
            return records.change(ctx, claim.job, decide)
        except WriteConflict:  # now it is the entries: the chunk is not written again
            return records.change(ctx, claim.job, _overtaken(ctx, claim))


def _accept(ctx: Context, ended: Ended, tail: list[LogEntry]) -> records.Decide:
    """What becomes of the job; ``tail`` is the log chunk that is still to be written."""
    claim, outcome, log_seq = ended.claim, ended.outcome, ended.log_seq

    def decide(job: Job) -> records.Change | None:
        if not claim.holds(job):
            if _accepted(ctx, claim):
                return None
            raise claim.stale(job)
        _check_outputs(ctx, job, outcome)
        try:
            entries = grants.operations(ctx, job, ended.touched, kept=outcome.category is Category.OK)
        except Conflict:
            return _conflicted(ctx, job)
        seen = observe.ended(ctx, job, outcome.category.value)
        stated = None if _lost(job, outcome) else _stated(ctx, job, ended)
        bill = _bill(job, stated)
        job = replace(job, billed=str(int(job.billed) + int(bill["units"])))
        step = _judge(ctx, job, outcome)
        # With the outcome, or not at all: who follows the log finds it complete when the job has ended.
        chunk = [ctx.logs.chunk(job.tenant, job.id, job.attempt, log_seq, tail)] if tail else []
        record = {
            "attempt": job.attempt,
            "agent": job.agent,
            "lessee": job.lessee,
            "pool": job.pool,
            "started_ms": job.started_ms,
            "finished_ms": ctx.clock.now_ms(),
            "outcome": outcome.as_json(),
        }
        if stated is not None:
            record["statement"] = stated.as_json()

        def accepted(after: Job) -> list[Operation]:
            leaf = leaves.of_outcome(ctx, after, category=outcome.category.value, bill=bill, stated=stated)
            attempt = Put(keys.attempt(job.id, job.attempt), {**record, "leaf": leaf.as_json()})
            return [attempt, leaf.put(job.attempt), *chunk, *seen, *entries]

        return replace(step, outcome=accepted)

    return decide


def _overtaken(ctx: Context, claim: Claim) -> records.Decide:
    """What becomes of the job of an attempt whose entries were changed by another call before it was accepted."""

    def decide(job: Job) -> records.Change | None:
        if claim.holds(job):
            return _conflicted(ctx, job)
        if _accepted(ctx, claim):
            return None
        raise claim.stale(job)

    return decide


def _conflicted(ctx: Context, job: Job) -> records.Change:
    """Nothing of the attempt is kept, nor billed: it saw what is no more. The next one reads again."""
    if job.cancel is not None:
        return stopped(ctx, job)
    conflicts = job.conflicts + 1
    reason = f"entries of function {job.entries_of} changed while it ran"
    if conflicts >= CONFLICTS_MAX:
        why = f"{reason}, {conflicts} attempts in a row"
        return records.finish(ctx, job, State.DEAD, reason=why, category=Category.PLATFORM, conflicts=conflicts)
    delay_ms = 0 if conflicts == 1 else min(CONFLICT_MS * 2 ** (conflicts - 2), 8_000)
    data = {"category": "conflict", "detail": reason}
    return records.retry(ctx, job, delay_ms=delay_ms, event="retrying", data=data, conflicts=conflicts)


def _stated(ctx: Context, job: Job, ended: Ended) -> Stated:
    """The statement that the agent signed: it is made here from what the platform knows, so nothing in it is believed.

    Raises:
        InvalidRequest: there is no signature, or it is of another statement.
    """
    signed = ended.signed
    if signed is None:
        problem = FieldProblem("statement", "must be there: an outcome is signed by its agent", "missing")
        raise InvalidRequest(f"{problem.field} {problem.message}", fields=[problem])
    if job.agent_key not in (None, signed.key_id):
        problem = FieldProblem("statement.key", "is not the one with which the attempt was leased", "key")
        raise InvalidRequest(f"{problem.field} {problem.message}", fields=[problem])
    code, given = job.code, job.input
    if not code:  # a job of a release without statements
        spec = stored_spec(ctx, job.id)
        code, given = code_digest(spec), input_digest(spec)
    subject = Subject(
        job.id,
        job.attempt,
        job.agent or "",
        job.spec_digest,
        code,
        given,
        job.runtime,
        delivered=job.delivered,
        evidence=job.evidence,
    )
    body = statement.body(subject, ended.outcome, pricing.terms_of(ctx, job))
    root = statement.root(statement.field_digests(body))
    if not statement.holds(signed.key, signed.signature, statement.signing_digest(body, root)):
        problem = FieldProblem("statement.signature", "is not one over the statement of this outcome", "signature")
        raise InvalidRequest(
            f"{problem.field} {problem.message}",
            fields=[problem],
            hint="use an agent of the platform's release, and a P-256 key",
            body_root=root.hex(),
        )
    return Stated(body, root, signed)


def _bill(job: Job, stated: Stated | None) -> Body:
    """What an outcome costs: an attempt that the platform lost costs nothing."""
    if stated is None:
        return {"token": job.token, "units": "0"}
    return {name: stated.body["price"][name] for name in ("token", "units")}


def _judge(ctx: Context, job: Job, outcome: Outcome) -> records.Change:
    category = outcome.category
    if _lost(job, outcome):
        return lapsed(ctx, job, outcome.detail or f"the agent reported {category}")
    failures = job.failures + (category in RETRIED)
    ended = replace(job, failures=failures, lapses=0, conflicts=0, cancel=None)
    if category in RETRIED and job.cancel is None:
        retry = Retry.model_validate(stored_spec(ctx, job.id).get("retry", {}))
        if failures < retry.max_attempts:
            data = {"category": category.value, "detail": outcome.detail}
            delay_ms = retry.delay_s(failures) * 1000
            return records.retry(ctx, ended, delay_ms=delay_ms, event="retrying", data=data)
    reason = None if category is Category.OK else outcome.detail or category.value
    state = FINAL_STATE[category]
    return records.finish(ctx, ended, state, reason=reason, category=category, exit_code=outcome.exit_code)


def _lost(job: Job, outcome: Outcome) -> bool:
    """Whether the attempt was lost by the platform: an agent that stopped a job which nobody asked it to stop has
    failed, not the job. Such an attempt needs no statement, and costs nothing."""
    if outcome.category is Category.CANCELLED:
        return job.cancel != "cancelled"
    if outcome.category is Category.DEADLINE:
        return job.deadline_ms is None
    return outcome.category is Category.PLATFORM


def _accepted(ctx: Context, claim: Claim) -> bool:
    record = ctx.store.get(keys.attempt(claim.job, claim.attempt), fresh=True)
    return record is not None and "outcome" in record.body and record.body["lessee"] == claim.lessee


def _check_outputs(ctx: Context, job: Job, outcome: Outcome) -> None:
    for number, output in enumerate(outcome.outputs):
        if output.blob is not None and ctx.blobs.size(job.tenant, output.blob) != output.size:
            problem = FieldProblem(f"outcome.outputs.{number}.blob", "has not been uploaded with this size")
            raise InvalidRequest(f"{problem.field} {problem.message}", fields=[problem])


def close(ctx: Context, job_ids: Iterable[str]) -> dict[str, tuple[Job, bool] | ComputeError | None]:
    """Handle a batch of completion messages: mark what follows the outcome as done.

    Returns by id the job and whether this call was the one that closed it, None when there is no such job, or the
    error of this one alone.
    """
    closing: dict[str, bool] = {}

    def decide(job: Job) -> records.Change | None:
        closing[job.id] = job.state.terminal and not job.closed
        if not closing[job.id]:
            return None
        # Nobody needs the key any more: it goes with the job.
        spent = [Delete(keys.data_key(job.id))] if job.data_key else []
        return records.Change(replace(job, closed=True, due_ms=None), operations=spent)

    done = records.change_all(ctx, dict.fromkeys(job_ids, decide))
    return {
        job_id: None if isinstance(job, NotFound) else job if isinstance(job, ComputeError) else (job, closing[job_id])
        for job_id, job in done.items()
    }
