"""HTTP requests as functions see them, and their responses: one line of JSON, and the body.

In: ``{"method","path","query","headers","body_size"}``, a newline, the body. Out: the body alone, or a line
``{"status","headers"}``, a newline, the body.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from aws_lambda_powertools.event_handler import Response

from hanzo_compute.errors import FieldProblem, FunctionFailed, InvalidRequest

HEADERS_MAX: Final = 64
HEADER_BYTES_MAX: Final = 16 << 10
BYTES: Final = "application/octet-stream"
EMPTY: Final = frozenset({204, 205, 304})
"""Statuses whose responses have no body (RFC 9110)."""
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS: Final = frozenset(
    {
        *("x-request-id", "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "content-length", "date", "server"),
    }
)
"""Headers of a connection (RFC 9110, 7.6.1), and what the server says by itself."""
_HEAD_MAX: Final = HEADER_BYTES_MAX + 1024


def body(event: Mapping[str, Any]) -> bytes:
    """The bytes of a request's body."""
    text = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return str(text).encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidRequest("the body is no base64", fields=[FieldProblem("(body)", "is no base64")]) from None


def request(event: Mapping[str, Any], path: str, data: bytes) -> bytes:
    """A request as a function reads it. The platform's own credential is not passed on."""
    headers = {name: value for name, value in (event.get("headers") or {}).items() if name not in _OURS}
    if "hzk_" in headers.get("authorization", "").lower():
        del headers["authorization"]
    if event.get("cookies"):
        headers["cookie"] = "; ".join(event["cookies"])
    head = {
        "method": event["requestContext"]["http"]["method"],
        "path": f"/{path}",
        "query": event.get("rawQueryString", ""),
        "headers": headers,
        "body_size": len(data),
    }
    return json.dumps(head, ensure_ascii=False).encode() + b"\n" + data


def plain(output: bytes, told: Mapping[str, str]) -> Response[Any]:
    """Bytes as they are."""
    return Response(status_code=200, content_type=BYTES, body=output, headers=dict(told))


def response(output: bytes, told: Mapping[str, str]) -> Response[Any]:
    """The response that a function gave. Raises FunctionFailed if it cannot be sent."""
    head, data = _split(output)
    if head is None:
        return plain(output, told)
    status = head.get("status")
    if type(status) is not int or not 200 <= status <= 599:
        raise _wrong(f"its status is {str(status)[:40]!r}, not a number from 200 to 599")
    headers = head.get("headers", {})
    if not isinstance(headers, dict) or len(headers) > HEADERS_MAX:
        raise _wrong(f"its headers are no object of at most {HEADERS_MAX}")
    if status in EMPTY and data:
        # The client would take these bytes for the head of the next response.
        raise _wrong(f"a response of status {status} has no body, and this one has {len(data)} bytes")
    kept: dict[str, str | list[str]] = {}
    ours = _OURS.union(name.lower() for name in told)
    size = 0
    media = BYTES
    for name, value in headers.items():
        if not isinstance(value, str) or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _wrong(f"its header {name[:80]!r} cannot be sent")
        size += len(name) + len(value)
        lower = name.lower()
        if lower in ours or lower.startswith("hzc-"):
            continue
        if lower == "content-type":
            media = value
        else:
            kept[lower] = value
    if size > HEADER_BYTES_MAX:
        raise _wrong(f"its headers have over {HEADER_BYTES_MAX} bytes")
    return Response(status_code=status, content_type=media, body=data, headers={**kept, **told})


def _split(output: bytes) -> tuple[dict[str, Any] | None, bytes]:
    if not output.startswith(b"{"):
        return None, output
    line, _, data = output.partition(b"\n")
    if len(line) > _HEAD_MAX:
        return None, output
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return None, output
    if not isinstance(head, dict) or "status" not in head:
        return None, output
    return head, data


def _wrong(why: str) -> FunctionFailed:
    return FunctionFailed(f"the function's response cannot be sent: {why}", hint="see docs/guests.md")
