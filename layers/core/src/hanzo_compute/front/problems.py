"""Errors as RFC 9457 problem details."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from aws_lambda_powertools.event_handler import Response
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from hanzo_compute.errors import ComputeError, FieldProblem, InvalidRequest, InvalidSpec, NotSupported
from hanzo_compute.model import bounds
from hanzo_compute.model.problems import field_problems
from hanzo_compute.model.spec import JobSpec

MEDIA_TYPE = "application/problem+json"


def document(error: ComputeError, request_id: str) -> dict[str, Any]:
    """The problem document of an error."""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "hint": error.hint,
        "retryable": error.retryable,
        "request_id": request_id,
    }
    if isinstance(error, InvalidRequest) and error.fields:
        found["errors"] = [problem.as_json() for problem in error.fields]
    shown = {name: value for name, value in found.items() if value is not None}
    return {**{name: value for name, value in error.data.items() if name not in shown}, **shown}


def response(error: ComputeError, request_id: str) -> Response[str]:
    """The problem document as a response."""
    headers: dict[str, str | list[str]] = {}
    if error.status in (429, 503):
        headers["Retry-After"] = str(error.data.get("retry_after_s", 1))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = to_json(document(error, request_id)).decode()
    return Response(status_code=error.status, content_type=MEDIA_TYPE, body=body, headers=headers)


def from_validation(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """The error for what validation found in a body of ``model``."""
    found = field_problems(error.errors(include_url=False, include_input=False), model)
    refused = [problem for problem in found if problem.code == "not_supported"]
    kind = NotSupported if refused else InvalidSpec if model is JobSpec else InvalidRequest
    shown = refused or found
    return kind(f"{shown[0].field}: {shown[0].message}", fields=shown, hint=shown[0].hint)


def check_media(given: str) -> None:
    """Refuse a ``Content-Type`` other than JSON in UTF-8, which is the only encoding that JSON has in HTTP."""
    media, _, parameters = given.partition(";")
    why = hint = None
    if media.strip().lower() != "application/json":
        why, hint = f"is {media.strip()[:80] or 'empty'}", "send application/json"
    elif not re.fullmatch(r'\s*(charset\s*=\s*"?utf-?8"?)?\s*;?\s*', parameters, re.IGNORECASE):
        why, hint = f"has{parameters[:80]}", "JSON is UTF-8: leave the charset out"
    if why is not None:
        problem = FieldProblem("Content-Type", why, "media_type", hint)
        raise InvalidRequest(f"the body must be JSON: Content-Type {why}", fields=[problem], hint=hint)


def unknown_parameters(names: Iterable[str], known: Sequence[str]) -> InvalidRequest:
    """The error for query parameters that a route does not have."""
    problems = []
    for name in itertools.islice(names, bounds.PROBLEMS_MAX):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known parameters: {', '.join(known) or 'none'}"
        problems.append(FieldProblem(name or "(empty name)", "unknown query parameter", "unknown", hint))
    return InvalidRequest(f"{problems[0].field}: {problems[0].message}", fields=problems, hint=problems[0].hint)


def loads(text: str) -> Any:
    """Decode JSON strictly; all failures are ``JSONDecodeError``.

    No NaN, no lone surrogates, no key twice, bounded depth, and at most ``JSON_VALUES_MAX`` values: what is made
    to be refused must not cost more than what is accepted.
    """
    left = bounds.JSON_VALUES_MAX

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal left
        left -= len(pairs) + sum(len(value) for _, value in pairs if isinstance(value, list))
        if left < 0:
            raise ValueError(f"it has more than {bounds.JSON_VALUES_MAX} values")
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an object has a key twice")
        return found

    try:
        value = json.loads(text, parse_constant=constant, object_pairs_hook=members)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError as error:
        reason = "it has a lone surrogate" if isinstance(error, UnicodeError) else str(error)
        if "integer string conversion" in reason:
            reason = "a number has too many digits"
        raise json.JSONDecodeError(reason, "", 0) from None
    return value
