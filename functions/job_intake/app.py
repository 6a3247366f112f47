"""Entry of the tenant's HTTP API; the routes are in the modules beside it."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.telemetry import configure
from job_intake import (
    dead_letters,
    entries,
    functions,
    invocations,
    jobs,
    log,
    logs,
    quotes,
    receipts,
    schedules,
    secrets,
    service,
    uploads,
)
from job_intake.api import api

logger = configure("job_intake")

__all__ = [
    "dead_letters",
    "entries",
    "functions",
    "handler",
    "invocations",
    "jobs",
    "log",
    "logs",
    "quotes",
    "receipts",
    "schedules",
    "secrets",
    "service",
    "uploads",
]


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle one API Gateway HTTP API event."""
    return api(event, context)
