"""What the description of the API says of itself: areas, credentials, problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hanzo_compute.front.problems import MEDIA_TYPE


@dataclass(frozen=True, slots=True)
class Area:
    """Routes that belong together: a tag."""

    text: str
    modules: tuple[str, ...]
    """Those whose handlers they are."""


AREAS: Final = {
    "jobs": Area(
        "Submit jobs, look at them, end them.",
        ("job_intake.jobs", "job_intake.logs", "job_intake.quotes", "job_intake.dead_letters"),
    ),
    "blobs": Area("Bytes that jobs read and write.", ("job_intake.uploads",)),
    "functions": Area("Deploy functions: versions, aliases, rollback, logs.", ("job_intake.functions",)),
    "calls": Area("Call a function: with bytes, or as a site of its own.", ("invoke.routes",)),
    "entries": Area("The key-value entries of a function.", ("job_intake.entries",)),
    "secrets": Area("What functions may read and nobody sees, and who has read it.", ("job_intake.secrets",)),
    "schedules": Area("Jobs that are submitted again and again.", ("job_intake.schedules",)),
    "receipts": Area(
        "What work was and cost, proven, and the transparency log that proves it.",
        ("job_intake.receipts", "job_intake.invocations", "job_intake.log"),
    ),
    "attestation": Area(
        "Evidence of runners, the policies that judge it, and the keys of sealed jobs.", ("attestation.app",)
    ),
    "market": Area("Where jobs are placed and why, what was learnt of pools, and plans.", ("market.app",)),
    "leases": Area("For agents: lease attempts of jobs, and hand in what became of them.", ("leases.app",)),
    "service": Area("The service itself.", ("job_intake.service",)),
}

INTRODUCTION: Final = """\
Jobs and functions in a sandbox, with receipts. An operation says which credential it takes: `owner` is a tenant's key,
`runner` an agent's.

Bodies are JSON in UTF-8 unless an operation says otherwise; unknown fields and query parameters are refused. Whatever
is refused is answered with a problem document (RFC 9457). Lists have `items` and `next_cursor`: go on until it is null.
With `wait_s` a call waits for news. Blobs go to and from URLs that answers give; those need no credential.\
"""

CREDENTIALS: Final[dict[str, Any]] = {
    "owner": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hzk_…",
        "description": "A tenant's key. The first start of a platform shows one, and writes it to credentials.json.",
    },
    "runner": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hzk_…",
        "description": "An agent's key: for leases and what goes with them, and for nothing else.",
    },
}

PROBLEM_RESPONSE: Final[dict[str, Any]] = {
    "description": "A problem. 400, 413, 422: the request must change; 401, 403: the credential will not do; 404: "
    "there is no such thing; 409: it is not as the request expects; 429, 503: come back later; 502, 504: the function "
    "failed, or took too long; 500: the platform failed.",
    "headers": {
        "Retry-After": {"description": "With 429 and 503: seconds.", "schema": {"type": "string"}},
        "WWW-Authenticate": {"description": "With 401.", "schema": {"type": "string"}},
    },
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}

ANY_QUERY: Final[dict[str, Any]] = {
    "name": "query",
    "in": "query",
    "required": False,
    "description": "Whatever the function understands.",
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
