"""Leaves of the transparency log: one for each accepted outcome, one for each end that no outcome brought, and one for
each batch of invocations, and one for each decision about a job's key.

A leaf is SHA-256 over 32 random bytes and the canonical body, so the public log tells nothing. It is written in the
transaction of what it tells of, with no place in the log yet: ``services.log`` gives it one.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
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
BATCH: Final = "batch"
DECISION: Final = "decision"


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a leaf commits to: the canonical body, behind a salt of 32 bytes."""

    salt: bytes
    body: Body

    @property
    def data(self) -> bytes:
        """The 32 bytes that go into the log."""
        return hashlib.sha256(self.salt + canonical(self.body)).digest()

    def as_json(self) -> Body:
        """As it is stored for its tenant."""
        return {"salt": self.salt.hex(), "body": self.body}

    def put(self, number: int | None, **more: Any) -> Put:
        """The record that waits for a place in the log: small, as it is written twice."""
        return self.put_at(keys.leaf(self.body["job"], number), **more)

    def put_at(self, key: Key, **more: Any) -> Put:
        """The same record at another place."""
        record = {"leaf": self.data.hex(), "at_ms": self.body["at_ms"], **more}
        return Put(key, record, expect=ABSENT, index=index(key, record))


def of_outcome(ctx: Context, job: Job, *, category: str, bill: Body, stated: Stated | None) -> Leaf:
    """The leaf of an outcome that was accepted for attempt ``job.attempt``; ``job`` is the job after it."""
    statement = None if stated is None else _committed(stated)
    return _leaf(ctx, job, OUTCOME, category=category, bill=bill, statement=statement)


def of_end(ctx: Context, job: Job) -> Leaf:
    """The leaf of a job that ended without an outcome: cancelled, expired, given up."""
    bill = {"token": job.token, "units": "0"}
    return _leaf(ctx, job, END, category=job.category or "", bill=bill, statement=None)


def of_batch(ctx: Context, tenant: str, header: Body, stated: Stated) -> Leaf:
    """The leaf of a batch of invocations: ``header`` is what was signed of it."""
    body = {
        "version": VERSION,
        "kind": BATCH,
        "tenant": tenant,
        "batch": header["batch"],
        "invocations": header["invocations"],
        "root": header["root"],
        "at_ms": ctx.clock.now_ms(),
        "bill": header["price"],
        "statement": _committed(stated),
    }
    return Leaf(_salt(ctx), body)


def of_decision(ctx: Context, tenant: str, decided: Body) -> Leaf:
    """The leaf of what was decided about a job's key, with every reason."""
    body = {"version": VERSION, "kind": DECISION, "tenant": tenant, "at_ms": ctx.clock.now_ms(), **decided}
    return Leaf(_salt(ctx), body)


def _leaf(ctx: Context, job: Job, kind: str, *, category: str, bill: Body, statement: Body | None) -> Leaf:
    body = {
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
        "billed": job.billed,
        "statement": statement,
    }
    return Leaf(_salt(ctx), body)


def _committed(stated: Stated) -> Body:
    signed = stated.signed
    return {"root": stated.root.hex(), "signature": signed.signature.hex(), "key": signed.key_id}


def _salt(ctx: Context) -> bytes:
    return base64.urlsafe_b64decode(ctx.ids.token() + "=")


def index(key: Key, record: Body) -> Entries:
    """The index entries of a leaf's record: it waits until it has its place."""
    return {} if "index" in record else {keys.BY_LOG: keys.unlogged_entry(record["at_ms"], key)}


def placed(record: Body, index: int) -> Body:
    """The record of a leaf that has got its place."""
    return {name: value for name, value in record.items() if name != "at_ms"} | {"index": index}
