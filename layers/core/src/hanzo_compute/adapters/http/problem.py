"""From a refusal on the wire back to the platform's error classes (RFC 9457 problem details)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from hanzo_compute import errors

_BY_STATUS: Final[dict[int, type[errors.ComputeError]]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.PayloadTooLarge,
    429: errors.RateLimited,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
}
_ENVELOPE: Final = frozenset({"type", "title", "status", "detail", "code", "hint", "errors", "retryable"})


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> errors.ComputeError:
    """The error that a response stands for: by its ``code``, else by its status.

    ``data`` holds the document's further members, and ``retry_after_s`` from the header.
    """
    error = of_document(_document(body), status)
    wait = _seconds(headers.get("Retry-After"))
    if wait is not None:
        error.data["retry_after_s"] = wait
    return error


def of_document(document: Mapping[str, Any], status: int = 500) -> errors.ComputeError:
    """The error of a problem document; ``status`` is that of its response, if it came in one of its own."""
    cls = errors.by_code().get(str(document.get("code", ""))) or _by_status(status)
    message = str(document.get("detail") or document.get("title") or f"the platform answered {status}")
    hint = document.get("hint")
    error = cls(message, hint=None if hint is None else str(hint))
    if isinstance(error, errors.InvalidRequest):
        error.fields = _fields(document.get("errors"))
    error.data = {name: value for name, value in document.items() if name not in _ENVELOPE}
    return error


def _by_status(status: int) -> type[errors.ComputeError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return errors.InvalidRequest if 400 <= status < 500 else errors.InternalError


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fields(problems: Any) -> tuple[errors.FieldProblem, ...]:
    if not isinstance(problems, list):
        return ()
    return tuple(
        errors.FieldProblem(
            field=str(problem.get("field", "")),
            message=str(problem.get("message", "")),
            code=str(problem.get("code", "invalid")),
            hint=problem.get("hint"),
        )
        for problem in problems
        if isinstance(problem, dict)
    )


def _seconds(value: str | None) -> float | None:
    """The header's delay; its other form, a date, is not used by this platform and is passed over."""
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
