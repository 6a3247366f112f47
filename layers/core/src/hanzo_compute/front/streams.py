"""Calls of functions as event streams: ``output`` for each piece of what one writes, and one ``end``.

An ``output`` has ``text``, or ``base64`` if it is none, and the ``name`` of an output that is not the standard one. The
``end`` has the ``status`` that an answer without a stream would have had, ``committed``, and what failed as ``error``.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from aws_lambda_powertools.event_handler import Response
from pydantic_core import to_json

from hanzo_compute.errors import ComputeError
from hanzo_compute.front import problems
from hanzo_compute.ports.sandboxes import GuestResult

EVENT_STREAM: Final = "text/event-stream"
PIECE: Final = 64 << 10
"""Bytes of output in one event, at most."""


def head(reference: str, call_id: str) -> dict[str, str]:
    """Headers of a stream's answer: what is known before anything is."""
    return {"X-Function": reference, "X-Invocation": call_id, "Cache-Control": "no-store"}


def piece(name: str | None, data: bytes) -> bytes:
    """The event of a piece of output; ``name`` None: of standard output."""
    told: dict[str, Any] = {} if name is None else {"name": name}
    try:
        found = _event("output", told | {"text": data.decode()})
    except UnicodeDecodeError:
        found = b""
    # Text of control characters is six times as long in JSON.
    if found and len(found) <= 2 * len(data) + 256:
        return found
    return _event("output", told | {"base64": base64.b64encode(data).decode()})


def pieces(data: bytes) -> bytes:
    """The events of standard output."""
    return b"".join(piece(None, data[at : at + PIECE]) for at in range(0, len(data), PIECE))


def end(
    reference: str,
    call_id: str,
    *,
    committed: bool | None,
    result: GuestResult | None = None,
    error: ComputeError | None = None,
    request_id: str = "",
    outputs: dict[str, str] | None = None,
) -> bytes:
    """The last event. ``committed``: whether what the call did is kept; None: that is not known."""
    told: dict[str, Any] = {
        "status": 200 if error is None else error.status,
        "function": reference,
        "invocation": call_id,
        "committed": committed,
    }
    if result is not None:
        usage = {"wall_us": result.wall_us, "cpu_ms": result.cpu_ms, "memory_peak_bytes": result.memory_bytes}
        told["usage"] = usage | ({} if result.fuel is None else {"fuel": result.fuel})
    if outputs:
        told["outputs"] = outputs
    if error is not None:
        told["error"] = problems.document(error, request_id)
    return _event("end", told)


def response(body: bytes, headers: dict[str, str]) -> Response[str]:
    """Events as an answer."""
    return Response(status_code=200, content_type=EVENT_STREAM, body=body.decode(), headers=dict(headers))


def _event(kind: str, told: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), to_json(told))
