"""Refusals by the host itself; they go out as the problem documents (RFC 9457) that handlers send, too."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import ClassVar

from hanzo_compute.errors import ComputeError, FieldProblem, InternalError, InvalidRequest, NotFound
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


class UnsupportedMedia(InvalidRequest):
    """The body is in a form that is not read here."""

    code: ClassVar[str] = "unsupported_media_type"
    title: ClassVar[str] = "Unsupported media type"
    status: ClassVar[int] = 415


class NotHttp(InvalidRequest):
    """The bytes are no HTTP/1.1 request, or one that can be read in two ways."""

    code: ClassVar[str] = "bad_http"
    title: ClassVar[str] = "Not valid HTTP/1.1"


def bad_http(what: str = "the request cannot be parsed", field: str = "(request)") -> NotHttp:
    """The refusal of what is not HTTP/1.1 as RFC 9112 has it."""
    hint = "send one well-formed HTTP/1.1 request at a time"
    return NotHttp(f"{field}: {what}", fields=[FieldProblem(field, what, "bad_http", hint)], hint=hint)


def head_too_large() -> HeadersTooLarge:
    """The refusal of a head that does not end."""
    return HeadersTooLarge("the head of the request is too large")


def head_is_late() -> RequestTimeout:
    """The refusal of a head that comes too slowly."""
    return RequestTimeout("the head of the request did not arrive in time")


def raw(error: ComputeError) -> bytes:
    """The whole response to a connection that has no request to answer, and is closed after it."""
    made = answer(error, "")
    body = json.loads(made.body)
    del body["request_id"]
    content = json.dumps(body, ensure_ascii=False).encode()
    headers = [*made.headers, (b"content-length", str(len(content)).encode()), (b"connection", b"close")]
    lines = [b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode())]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", content])


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
    headers = {name.lower(): value for name, value in made.headers.items()} | {"content-type": problems.MEDIA_TYPE}
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.data["allow"])
    return to_answer({"statusCode": made.status_code, "headers": headers, "body": made.body})
