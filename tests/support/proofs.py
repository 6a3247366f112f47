"""A platform in one object, as the client of its log and receipts sees it."""

from __future__ import annotations

import json
from typing import Any

from hanzo_compute.errors import InvalidRequest
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


def cancelled(platform: Platform, count: int) -> list[str]:
    """Jobs that ended, in the log under a new checkpoint."""
    jobs = [platform.submitted() for _ in range(count)]
    for job in jobs:
        cancel.cancel(platform.ctx, "acme", job)
    platform.clock.advance(1000)
    log.sequence(platform.ctx)
    return jobs
