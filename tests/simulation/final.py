"""The checks of a schedule that has come to rest: whole histories against the rules, and nothing left over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryBlobs, MemoryDatabase
from hanzo_compute.config import Policy
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import RETRIED
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State
from hanzo_compute.services import audit
from tests.simulation import treelog
from tests.simulation.invariants import Accepted, Watch, require
from tests.simulation.profiles import Profile
from tests.simulation.runner import Execution
from tests.support.rows import rows_in

MINUTE = 60_000
Bodies = dict[str, dict[str, Any]]


def jobs(database: MemoryDatabase) -> dict[str, Bodies]:
    """The records of every job, by sort key."""
    return {
        pk.removeprefix("JOB#"): {sk: decode_body(stored.body) for sk, stored in sorted(records.items())}
        for pk, records in database.partitions.items()
        if pk.startswith("JOB#") and records
    }


def settled(database: MemoryDatabase) -> str | None:
    """What still has to happen, or None when the platform is at rest."""
    for job_id, records in jobs(database).items():
        meta = records["META"]
        if not (State(meta["state"]).terminal and meta.get("closed")):
            return f"job {job_id} is {meta['state']}, closed: {meta.get('closed', False)}"
    if database.messages:
        return f"messages are left: {[(m.queue, m.body) for m in database.messages.values()]}"
    for pk, rows in database.partitions.items():
        if pk.startswith("OUTBOX#") and rows:
            return f"outbox rows are left: {list(rows)}"
    return treelog.waiting(database)


def check(
    database: MemoryDatabase, blobs: MemoryBlobs, watch: Watch, executions: Sequence[Execution], profile: Profile
) -> None:
    """Raise Violation if anything that must hold at rest does not."""
    found = jobs(database)
    for job_id in watch.accepted:
        require(job_id in found, f"job {job_id} was accepted, and is lost")
    wrong = list(audit.findings(rows_in(database), found.__contains__, 0, profile.policy))
    require(not wrong, f"a repair would find: {wrong}")
    requests = Counter(records["SPEC"]["env"]["REQUEST"] for records in found.values() if _keyed(records))
    doubled = [request for request, count in requests.items() if count > 1]
    require(not doubled, f"one idempotency key made several jobs: {doubled}")
    ran = Counter((each.lease.job, each.lease.attempt) for each in executions)
    twice = [attempt for attempt, count in ran.items() if count > 1]
    require(not twice, f"one attempt ran on two agents: {twice}")
    by_name = {each.name: each for each in executions}
    for job_id, records in found.items():
        job = Job.from_record(records["META"])
        _history(job, records)
        _verdict(job, records, watch, profile.policy)
        require(not profile.jumps or job.state is not State.DEAD, f"{job_id} is dead: {job.reason}")
        require(profile.budget or not job.lapses, f"{job_id} lost {job.lapses} attempts without a fault")
        logs = _logs(database, blobs, job_id)
        _outcomes(job, records, by_name, profile.policy, logs)
        if job_id in watch.accepted:
            _client(job, watch.accepted[job_id], logs)
    treelog.check(database, found)
    watch.functions.check(database, found)
    watch.entries.check(database, found)
    watch.sealed.check(database, blobs, found, by_name)
    _schedules(found, watch)
    for (index, pk), entries in database.entries.items():
        require(index != keys.BY_POOL or not entries, f"{pk} still holds {list(entries)}")


def _schedules(found: dict[str, Bodies], watch: Watch) -> None:
    """Each minute of a schedule has each of its jobs once."""
    made: Counter[tuple[str, str, str, str]] = Counter()
    for records in found.values():
        meta, origin = records["META"], records["META"].get("origin", {})
        if origin.get("kind") == "schedule":
            made[meta["tenant"], origin["schedule"], origin["at"], records["SPEC"]["env"]["REQUEST"]] += 1
    twice = [run for run, count in made.items() if count > 1]
    require(not twice, f"a schedule has submitted a job twice: {twice}")
    for (tenant, name), known in watch.schedules.items():
        for at in range(-(-known.from_ms // MINUTE) * MINUTE, known.to_ms, MINUTE):
            missing = [each for each in known.requests if not made[tenant, name, format_time(at), each]]
            require(not missing, f"schedule {name} has not submitted {missing} at {format_time(at)}")


def _keyed(records: Bodies) -> bool:
    again = "origin" in records["META"]
    return not again and str(records["SPEC"]["env"]["REQUEST"]).startswith("keyed")


def _history(job: Job, records: Bodies) -> None:
    events = [body for sk, body in records.items() if sk.startswith("EVENT#")]
    require([event["seq"] for event in events] == list(range(1, job.events + 1)), f"{job.id}: events have gaps")
    require(events[0]["type"] == "submitted", f"{job.id}: the first event is {events[0]['type']}")
    require(events[-1]["type"] == job.state.value, f"{job.id} is {job.state}, its last event {events[-1]['type']}")
    times = [event["at_ms"] for event in events]
    require(times == sorted(times), f"{job.id}: events go back in time")
    running = [event["attempt"] for event in events if event["type"] == "running"]
    require(running == list(range(1, job.attempt + 1)), f"{job.id}: attempts are {running}, not 1..{job.attempt}")
    ended = [event for event in events if event["type"] in {state.value for state in State if state.terminal}]
    require(len(ended) == 1, f"{job.id} ended {len(ended)} times")


def _verdict(job: Job, records: Bodies, watch: Watch, policy: Policy) -> None:
    spec = records["SPEC"]
    most = spec["retry"]["max_attempts"]
    kinds = [body["type"] for sk, body in records.items() if sk.startswith("EVENT#")]
    stopped = "cancel_requested" in kinds
    require(job.failures <= most, f"{job.id} failed {job.failures} times of at most {most}")
    if job.state in (State.FAILED, State.TIMED_OUT):
        spent = job.failures == most or stopped or job.category == "invalid_program"
        require(spent, f"{job.id} is {job.state} after {job.failures} of {most} failures")
    if job.state is State.CANCELLED:
        require(job.id in watch.cancels, f"{job.id} was cancelled by nobody")
        require((job.category, job.exit_code) == ("cancelled", None), f"{job.id}: {job.category}, {job.exit_code}")
    if job.state is State.EXPIRED:
        require(job.deadline_ms is not None, f"{job.id} expired without a deadline")
    if job.state is State.DEAD:
        lost = job.lapses >= policy.max_lapses or "could not be placed" in str(job.reason)
        require(lost, f"{job.id} is dead after {job.lapses} lapses: {job.reason}")


def _outcomes(
    job: Job, records: Bodies, by_name: dict[str, Execution], policy: Policy, logs: dict[int, list[str]]
) -> None:
    attempts = {body["attempt"]: body for sk, body in records.items() if sk.startswith("ATTEMPT#")}
    require(list(attempts) == list(range(1, job.attempt + 1)), f"{job.id}: attempt records are {list(attempts)}")
    failures = 0
    for number, body in attempts.items():
        outcome = body.get("outcome")
        if outcome is None:
            continue
        failures += outcome["category"] in RETRIED
        require("the agent failed" not in outcome.get("detail", ""), f"{job.id}: {outcome.get('detail')}")
        if not outcome.get("runtime_version"):
            require(outcome["category"] == "platform", f"{job.id}: an outcome that no program made")
            continue
        execution = by_name.get(outcome["runtime_version"])
        require(execution is not None, f"{job.id}: outcome of an unknown run {outcome['runtime_version']}")
        assert execution is not None
        require(
            (execution.lease.job, execution.lease.attempt) == (job.id, number),
            f"{job.id}: attempt {number} has the outcome of {execution.name}",
        )
        require(execution.name.startswith(f"{body['agent']}/"), f"{job.id}: {execution.name} was not {body['agent']}'s")
        require(
            job.data_key is not None or logs.get(number, []) == execution.texts,
            f"{job.id}: log of attempt {number} is {logs.get(number, [])}, written was {execution.texts}",
        )
    require(failures == job.failures, f"{job.id}: {failures} failures on record, {job.failures} counted")
    if job.state is State.SUCCEEDED:
        last = attempts[job.attempt].get("outcome") or {}
        require(last.get("category") == "ok", f"{job.id} succeeded with {last}")
        size, wrote = sum(each["size"] for each in last["outputs"]), by_name[last["runtime_version"]].plan.stdout
        require(job.data_key is not None or size == wrote, f"{job.id}: its output has {size} bytes")
    late = [e.name for e in by_name.values() if e.lease.job == job.id and _overtime(job, e, policy)]
    require(not late, f"{late} ran on after the deadline")


def _overtime(job: Job, execution: Execution, policy: Policy) -> bool:
    from tests.simulation.scheduler import START_MS

    if job.deadline_ms is None:
        return False
    # Lease, download and start take simulated time, which the agent's own limit cannot know.
    return START_MS + execution.begin_us // 1000 > job.deadline_ms + policy.deadline_grace_ms + 40_000


def _logs(database: MemoryDatabase, blobs: MemoryBlobs, job_id: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for sk, stored in sorted(database.partitions.get(keys.log_partition(job_id), {}).items()):
        body = decode_body(stored.body)
        rows = body["entries"] if "entries" in body else json.loads(blobs.get(body["tenant"], body["blob"]))
        found.setdefault(int(sk.partition("#")[0]), []).extend(text for _, _, text in rows)
    return found


def _client(job: Job, accepted: Accepted, logs: dict[int, list[str]]) -> None:
    require(job.tenant == accepted.tenant, f"{job.id} belongs to {job.tenant}, not to {accepted.tenant}")
    require(accepted.ended is not None, f"nobody saw {job.id} end")
    view = job.view()
    seen = {name: value for name, value in (accepted.ended or {}).items() if name in view}
    require(seen == view, f"{job.id} was seen as {seen}, and is {view}")
    if accepted.followed is not None:
        whole = [text for _, texts in sorted(logs.items()) for text in texts]
        require(accepted.followed == whole, f"{job.id}: followed {accepted.followed}, kept {whole}")
