"""Leaves of the transparency log: one for each accepted outcome, and one for each end that no outcome brought.

A leaf is SHA-256 over 32 random bytes and the canonical body, so the public log tells nothing. It is written in the
transaction of what it tells of, with no place in the log yet: ``services.log`` gives it one.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from hanzo_compute.model import keys
from hanzo_compute.model.canonical import canonical
from hanzo_compute.model.job import Job
from hanzo_compute.model.keys import Key
from hanzo_compute.model.statement import Stated
from hanzo_compute.ports import ABSENT, Body, Entries, Put
from hanzo_compute.services.context import Context

VERSION: Final = 1
OUTCOME: Final = "outcome"
END: Final = "end"


def of_outcome(ctx: Context, job: Job, *, category: str, bill: Body, stated: Stated | None) -> Put:
    """The leaf of an outcome that was accepted for attempt ``job.attempt``; ``job`` is the job after it."""
    statement = None
    if stated is not None:
        signed = stated.signed
        statement = {"root": stated.root.hex(), "signature": signed.signature.hex(), "key": signed.key_id}
    body = _body(ctx, job, OUTCOME, category=category, bill=bill, statement=statement)
    return _put(ctx, keys.leaf(job.id, job.attempt), body)


def of_end(ctx: Context, job: Job) -> Put:
    """The leaf of a job that ended without an outcome: cancelled, expired, given up."""
    bill = {"token": job.token, "units": "0"}
    body = _body(ctx, job, END, category=job.category or "", bill=bill, statement=None)
    return _put(ctx, keys.leaf(job.id, None), body)


def _body(ctx: Context, job: Job, kind: str, *, category: str, bill: Body, statement: Body | None) -> Body:
    return {
        "version": VERSION,
        "kind": kind,
        "tenant": job.tenant,
        "job": job.id,
        "attempt": job.attempt,
        "state": job.state.value,
        "category": category,
        "reason": job.reason,
        "at_ms": ctx.clock.now_ms(),
        "bill": bill,
        "statement": statement,
    }


def _put(ctx: Context, key: Key, body: Body) -> Put:
    salt = base64.urlsafe_b64decode(ctx.ids.token() + "=")
    record = {"leaf": data(salt, body).hex(), "salt": salt.hex(), "body": body}
    return Put(key, record, expect=ABSENT, index=index(key, record))


def index(key: Key, record: Body) -> Entries:
    """The index entries of a leaf's record: it waits until it has its place."""
    return {} if "index" in record else {keys.BY_LOG: keys.unlogged_entry(record["body"]["at_ms"], key)}


def data(salt: bytes, body: dict[str, Any]) -> bytes:
    """The 32 bytes that go into the log."""
    return hashlib.sha256(salt + canonical(body)).digest()
