"""Refusals by the host itself; they go out as the problem documents (RFC 9457) that handlers send, too."""

from __future__ import annotations

from typing import ClassVar

from hanzo_compute.errors import ComputeError, InternalError, InvalidRequest, NotFound
from hanzo_compute.front import problems
from hanzo_compute_host.events import Answer, to_answer


class MethodNotAllowed(InvalidRequest):
    """There is such a path, but not for this method."""

    code: ClassVar[str] = "method_not_allowed"
    title: ClassVar[str] = "Method not allowed"
    status: ClassVar[int] = 405


class RequestTimeout(InvalidRequest):
    """The client took too long to send its request."""

    code: ClassVar[str] = "request_timeout"
    title: ClassVar[str] = "The request took too long to arrive"
    status: ClassVar[int] = 408
    retryable: ClassVar[bool] = True


class HeadersTooLarge(InvalidRequest):
    """The request's headers are over the bound."""

    code: ClassVar[str] = "headers_too_large"
    title: ClassVar[str] = "Headers too large"
    status: ClassVar[int] = 431


def no_route(method: str, path: str, allowed: list[str]) -> ComputeError:
    """What to answer when no route takes a request; ``allowed`` are the methods that the path takes."""
    if allowed:
        hint = f"use {' or '.join(allowed)}"
        return MethodNotAllowed(f"{path} does not take {method}", hint=hint, allow=allowed)
    return NotFound(f"there is no {path}", hint="GET /openapi.json lists what there is")


def defect() -> InternalError:
    """What the client is told of a failure of ours: nothing but that it is in the log."""
    return InternalError("the platform failed on this request", hint="report it with its request_id")


def answer(error: ComputeError, request_id: str) -> Answer:
    """The response to a request that ``error`` refuses."""
    made = problems.response(error, request_id)
    headers = {**made.headers, "content-type": problems.MEDIA_TYPE}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.data["allow"])
    return to_answer({"statusCode": made.status_code, "headers": headers, "body": made.body})
