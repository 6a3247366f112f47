"""Fills a store with jobs that have ended, as the services would have left them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category, Outcome, Output, Usage
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.spec import digest
from hanzo_compute.model.states import State
from hanzo_compute.ports import ABSENT, TRANSACTION_MAX, Put
from hanzo_compute.services import records
from hanzo_compute.services.context import Context

EVENTS = ("submitted", "placed", "leased", "succeeded")
SPEC: dict[str, Any] = {
    "source": {"code": "import sys\nprint(sum(map(int, sys.stdin)))", "language": "python"},
    "input": {"inline": "1\n2\n3\n"},
    "resources": {"memory_mib": 128, "timeout_s": 30},
}
RARE = 10
"""The first jobs, so many, have failed and have a label of their own: the same number whatever the size."""


def fill(ctx: Context, tenant: str, count: int) -> list[str]:
    """Write ``count`` jobs; their ids, oldest first. Not durable before the next ticket is."""
    ids: list[str] = []
    made = (_job(ctx, tenant, number, ids) for number in range(count))
    # Whole jobs, as many as fit into one transaction.
    while batch := list(islice(made, TRANSACTION_MAX // (5 + len(EVENTS)))):
        ctx.store.transact([put for puts in batch for put in puts])
    return sorted(ids)  # those of one millisecond are made in no order


def _job(ctx: Context, tenant: str, number: int, ids: list[str]) -> list[Put]:
    now = ctx.clock.now_ms()
    rare = number < RARE
    labels = {"common": "1"} | ({"rare": "1"} if rare else {})
    spec = parse_spec(SPEC | {"labels": labels}).as_json()
    outcome = Outcome(
        category=Category.EXIT if rare else Category.OK,
        exit_code=1 if rare else 0,
        outputs=[Output(name="stdout", size=2, inline_base64="Ngo=")],
        usage=Usage(wall_ms=12, cpu_ms=9, memory_peak_bytes=1 << 20, memory_mib_ms=1536),
        runtime_version="wasmtime 50.0.1 cpython 3.12",
    )
    job = Job(
        id=ctx.ids.new("j", now),
        tenant=tenant,
        state=State.FAILED if rare else State.SUCCEEDED,
        runtime="wasm",
        created_ms=now,
        updated_ms=now,
        due_ms=None,
        timeout_s=30,
        spec_digest=digest(spec),
        labels=labels,
        attempt=1,
        events=len(EVENTS),
        pool="local",
        agent="local-1",
        lessee="platform",
        placed_ms=now,
        started_ms=now,
        finished_ms=now,
        category=outcome.category.value,
        exit_code=outcome.exit_code,
        closed=True,
    )
    ids.append(job.id)
    attempt = {"attempt": 1, "agent": "local-1", "lessee": "platform", "started_ms": now, "outcome": outcome.as_json()}
    return [
        Put(keys.job(job.id), job.record(), expect=ABSENT, index=records.index(job)),
        Put(keys.spec(job.id), spec, expect=ABSENT),
        Put(keys.attempt(job.id, 1), attempt, expect=ABSENT),
        *(Put(keys.event(job.id, seq), body, expect=ABSENT) for seq, body in _events(now)),
        *(Put(keys.label(tenant, name, value, job.id), {}, expect=ABSENT) for name, value in labels.items()),
    ]


def _events(now: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for seq, kind in enumerate(EVENTS, 1):
        yield seq, {"seq": seq, "at_ms": now, "type": kind} | ({"attempt": 1} if seq > 2 else {})
