"""Receipts of a platform in one object, and what makes of them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hanzo_compute.model.outcome import Category, Outcome, Output, Usage
from hanzo_compute.services import complete, log, receipts
from hanzo_compute.transparency.checkpoint import VerifierKey
from hanzo_compute.transparency.form import ReceiptInvalid
from hanzo_compute.transparency.receipt import Verified, verify
from tests.support import statements
from tests.support.stepped import Platform

Receipt = dict[str, Any]


def outcome(**fields: Any) -> Outcome:
    usage = Usage(wall_ms=1500, cpu_ms=1400, memory_peak_bytes=5, memory_mib_ms=384_000, fuel=12345)
    output = Output(name="stdout", size=5, inline_base64=base64.b64encode(b"hello").decode())
    given = {"category": Category.OK, "exit_code": 0, "outputs": [output], "usage": usage} | fields
    return Outcome(runtime_version="wasmtime 50.0.1", **given)


def settled(platform: Platform) -> None:
    """Everything has its place, under a checkpoint."""
    platform.clock.advance(1000)
    log.sequence(platform.ctx)


def receipt_of(platform: Platform, job: str, attempt: int | None = None) -> Receipt:
    found = receipts.receipt(platform.ctx, "acme", job, attempt).receipt
    assert found is not None
    # As it comes out of a file.
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def finished(platform: Platform, given: Outcome | None = None, **spec: Any) -> str:
    claim = platform.running(**spec)
    complete.complete(platform.ctx, statements.ended(platform.ctx, claim, given or outcome()))
    return claim.job


def key_of(platform: Platform) -> VerifierKey:
    return log.verifier_key(platform.ctx)


def check(receipt: Any, platform: Platform, *, job: str | None = None, agents: set[str] | None = None) -> Verified:
    pinned = key_of(platform)
    return verify(
        receipt,
        lambda given: pinned if given.name == pinned.name else None,
        lambda origin, name, key: agents is None or key in agents,
        job=job,
    )


def refused(receipt: Any, platform: Platform, **options: Any) -> ReceiptInvalid:
    with pytest.raises(ReceiptInvalid) as found:
        check(receipt, platform, **options)
    return found.value
