"""A queue function: a batch of messages about jobs, handled together; failures are reported one by one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from hanzo_compute.errors import ComputeError
from hanzo_compute.front.telemetry import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")
Handle = Callable[[Sequence[str]], Mapping[str, T | ComputeError]]
"""Handles jobs by id; says for each what it came to, or the error that makes its message come again."""


def consume(
    event: dict[str, Any], handle: Handle[T], done: Callable[[str, T], None], metrics: Metrics
) -> dict[str, Any]:
    """Handle the jobs that the SQS records name, together; ``done`` hears of each that was handled."""
    jobs = {record["messageId"]: _job(record) for record in event["Records"]}
    found = _handled(handle, list(dict.fromkeys(job for job in jobs.values() if job is not None)))
    for job, result in found.items():
        if isinstance(result, Exception):
            log.warning("job %s is tried again: %s", job, result)
        else:
            done(job, result)
    metrics.flush()
    failed = [message for message, job in jobs.items() if job is None or isinstance(found[job], Exception)]
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}


def _handled(handle: Handle[T], jobs: Sequence[str]) -> dict[str, T | Exception]:
    try:
        return dict(handle(jobs))
    except Exception as error:
        log.exception("a batch of %d jobs failed", len(jobs))
        if len(jobs) == 1:
            return {jobs[0]: error}
    found: dict[str, T | Exception] = {}
    for job in jobs:  # a defect that one of them meets must not hold up the others
        found.update(_handled(handle, [job]))
    return found


def _job(record: dict[str, Any]) -> str | None:
    try:
        return str(json.loads(record["body"])["job"])
    except (ValueError, TypeError, KeyError):
        log.error("message %s names no job: %.200s", record["messageId"], record["body"])
        return None
