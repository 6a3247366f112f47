"""Entry of calls of functions; the routes are in the module beside it."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.calls import calls
from hanzo_compute.front.telemetry import configure
from hanzo_compute.services import function_logs
from hanzo_compute.wiring import container, guests
from invoke import routes
from invoke.api import api

logger = configure("invoke")

__all__ = ["handler", "routes"]

FLUSH = "hzc.flush"
"""Source of the event by which a host asks to write what was gathered."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle one API Gateway HTTP API event, or write what calls have left to be written."""
    if event.get("source") == FLUSH:
        return _flush()
    calls.inline(lambda: guests(container().config))
    answer = api(event, context)
    if not calls.deferred:
        _flush()
    return answer


def _flush() -> dict[str, Any]:
    """Write logs and receipts; ``waits``: something is left to do."""
    ctx = container()
    batcher = ctx.invocations
    due = batcher is not None and batcher.due(ctx.clock.now_ms())
    if batcher is not None and batcher.waits and not due:
        return {"waits": True}
    lines = function_logs.flush(ctx)
    receipts = len(batcher.flush(ctx)) if batcher is not None and due else 0
    return {"lines": lines, "receipts": receipts, "waits": batcher is not None and batcher.waits}
