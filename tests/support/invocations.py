"""Invocations as a process hands them to its batcher, and their receipts as they come out of a file."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hanzo_compute.model.invocation import Invocation
from hanzo_compute.model.outcome import Category, Outcome, Output, Usage
from hanzo_compute.model.spec import Resources
from hanzo_compute.services import batches, log, pricing
from hanzo_compute.services.context import Context
from hanzo_compute.services.invocations import Batcher
from tests.support.stepped import Platform

CODE = hashlib.sha256(b"code").hexdigest()
SPEC = hashlib.sha256(b"spec").hexdigest()


def outcome(response: bytes = b"pong", **fields: Any) -> Outcome:
    """That of a small call."""
    output = Output(name="response", size=len(response), blob=f"b1-{hashlib.sha256(response).hexdigest()}")
    usage = Usage(wall_ms=12, cpu_ms=11, memory_peak_bytes=65_536, memory_mib_ms=768, fuel=12_345)
    given = {"category": Category.OK, "exit_code": 0, "outputs": [output], "usage": usage} | fields
    return Outcome(runtime_version="wasmtime 50.0.1", **given)


def invocation(ctx: Context, number: int = 0, *, tenant: str = "acme", **fields: Any) -> Invocation:
    """One that began now."""
    now = ctx.clock.now_ms()
    given = {
        "id": ctx.ids.new("i", now),
        "function": "ping@3",
        "spec": SPEC,
        "code": CODE,
        "input": hashlib.sha256(b"%d" % number).hexdigest(),
        "terms": pricing.terms_of_call(ctx, "wasm", "fast", Resources()),
        "outcome": outcome(b"pong %d" % number),
        "started_ms": now,
    }
    return Invocation(tenant=tenant, **{**given, **fields})


def flushed(platform: Platform, count: int = 5, batcher: Batcher | None = None, **fields: Any) -> list[str]:
    """Ids of invocations in a batch of their own, under a new checkpoint."""
    batcher = batcher or Batcher("local")
    for number in range(count):
        batcher.add(invocation(platform.ctx, number, **fields))
        platform.clock.advance(1)
    done = batcher.flush(platform.ctx)
    platform.clock.advance(1000)
    log.sequence(platform.ctx)
    return done


def receipt_of(platform: Platform, invocation_id: str, tenant: str = "acme") -> dict[str, Any]:
    """The receipt, which must be there."""
    found = batches.receipt(platform.ctx, tenant, invocation_id).receipt
    assert found is not None
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]
