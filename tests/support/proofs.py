"""A platform in one object, as the client of its log and receipts sees it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.ports import Ids
from hanzo_compute.services import cancel, log, receipts
from tests.support.stepped import Platform


class Proofs:
    """What :class:`hanzo_compute.adapters.http.ProofClient` gives, from services without HTTP between."""

    url = "http://platform.test"

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def checkpoint(self) -> dict[str, Any]:
        return json.loads(json.dumps(log.checkpoint(self.platform.ctx)))  # type: ignore[no-any-return]

    def consistency(self, old: int, new: int) -> list[bytes]:
        try:
            return [bytes.fromhex(node) for node in log.consistency(self.platform.ctx, old, new)]
        except InvalidRequest as error:
            raise InvalidRequest(error.message) from None

    def entries(self, start: int) -> bytes:
        return log.entries(self.platform.ctx, start, 7)

    def receipt(self, job: str, attempt: int | None = None, *, wait_s: float = 0.0) -> dict[str, Any] | None:
        found = receipts.receipt(self.platform.ctx, "acme", job, attempt).receipt
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]


class NamedIds:
    """Ids as usual, but for jobs those that are given."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self.jobs: list[str] = []

    def new(self, prefix: str, now_ms: int) -> str:
        return self.jobs.pop() if prefix == "j" and self.jobs else self._ids.new(prefix, now_ms)

    def token(self) -> str:
        return self._ids.token()


def named_platform() -> tuple[Platform, NamedIds]:
    """A platform whose next jobs get the ids that are asked for."""
    platform = Platform()
    ids = NamedIds(platform.ctx.ids)
    platform.ctx = replace(platform.ctx, ids=ids)
    return platform, ids


def succeeded(platform: Platform) -> str:
    """A job that ran, in the log under a new checkpoint."""
    claim = platform.running()
    platform.end(claim, runtime_version="wasmtime")
    platform.clock.advance(1000)
    log.sequence(platform.ctx)
    return claim.job


def cancelled(platform: Platform, count: int) -> list[str]:
    """Jobs that ended, in the log under a new checkpoint."""
    jobs = [platform.submitted() for _ in range(count)]
    for job in jobs:
        cancel.cancel(platform.ctx, "acme", job)
    platform.clock.advance(1000)
    log.sequence(platform.ctx)
    return jobs
