"""The OpenAPI description of a function's routes."""

from __future__ import annotations

import json
from typing import Any, Final

from aws_lambda_powertools.event_handler.openapi.models import HTTPBearer

from hanzo_compute import __version__
from hanzo_compute.front.api import Api
from hanzo_compute.front.problems import MEDIA_TYPE

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What went wrong, and why."},
        "code": {"type": "string", "description": "Stable; see docs/api.md."},
        "hint": {"type": "string", "description": "What to do next."},
        "retryable": {"type": "boolean", "description": "Whether the same call can succeed later."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {name: {"type": "string"} for name in ("field", "code", "message", "hint")},
            },
        },
    },
}


def describe(api: Api, title: str) -> dict[str, Any]:
    """OpenAPI 3.1 of all routes: every operation answers with JSON or with a problem."""
    text = api.resolver.get_openapi_json_schema(
        title=title,
        version=__version__,
        security_schemes={"key": HTTPBearer(bearerFormat="hzk")},
        security=[{"key": []}],
    )
    found: dict[str, Any] = json.loads(text)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = PROBLEM
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, item in found["paths"].items():
        for method, operation in item.items():
            responses = operation["responses"]
            responses.pop("422", None)  # what the resolver documents of its own; our refusals are problems
            for answer in responses.values():
                answer["content"] = {"application/json": {"schema": {"type": "object"}}}
            responses["default"] = {"description": "A problem", "content": problem}
            if not api.needs_credential(f"{method.upper()} {path}"):
                operation["security"] = []
    return found
