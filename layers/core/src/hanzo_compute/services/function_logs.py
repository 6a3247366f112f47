"""What functions write to standard error and log, kept for a while: the newest chunks of each function.

A process gathers lines and writes them together, about once a second: what it has gathered is lost if it dies.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from pydantic_core import to_json

from hanzo_compute.model import keys
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import ABSENT, Delete, Operation, Put
from hanzo_compute.ports.sandboxes import GuestResult
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

CHUNK_MAX: Final = 160 << 10
"""Bytes of one chunk as JSON. What one call wrote fits, however it is escaped."""
CALL_MAX: Final = 16 << 10
"""Bytes that are kept of what one call wrote."""
CHUNKS_KEPT: Final = 64
"""Chunks of one function."""
GATHERED_MAX: Final = 4 << 20
"""Bytes that a process gathers; what comes beyond is dropped, and counted."""


def note(ctx: Context, tenant: str, reference: str, call_id: str, began_ms: int, result: GuestResult) -> None:
    """Remember what a call wrote, and how it ended if that was not well."""
    if not result.errors and result.category == "ok":
        return
    gathered = ctx.function_logs
    text = result.errors[:CALL_MAX].decode("utf-8", "backslashreplace")
    if gathered.size > GATHERED_MAX:
        gathered.dropped += 1
        return
    line: dict[str, Any] = {"at_ms": began_ms, "function": reference, "invocation": call_id, "text": text}
    if len(result.errors) > CALL_MAX:
        line["truncated"] = True
    if result.category != "ok":
        line |= {"category": result.category, "detail": result.detail[:1000]}
    gathered.size += len(to_json(line))
    gathered.lines.setdefault((tenant, reference.partition("@")[0]), []).append(line)


def flush(ctx: Context) -> int:
    """Write what was gathered; returns how many lines."""
    gathered = ctx.function_logs
    if gathered.dropped:
        log.warning("what %d calls of functions wrote is dropped: it was too much for a second", gathered.dropped)
    lines, gathered.lines, gathered.size, gathered.dropped = gathered.lines, {}, 0, 0
    written = 0
    for (tenant, name), found in lines.items():
        now = ctx.clock.now_ms()
        for number, chunk in enumerate(_chunks(found)):
            _write(ctx, tenant, name, now + number, chunk)  # ids of one millisecond have no order
            written += len(chunk)
    return written


def _write(ctx: Context, tenant: str, name: str, at_ms: int, chunk: list[dict[str, Any]]) -> None:
    at = keys.function_log(tenant, name, ctx.ids.new("l", at_ms))
    operations: list[Operation] = [Put(at, {"lines": chunk}, expect=ABSENT)]
    kept = ctx.store.query(at.pk, limit=CHUNKS_KEPT + 16)
    if len(kept) >= CHUNKS_KEPT:
        operations += [Delete(record.key) for record in kept[: len(kept) - CHUNKS_KEPT + 1]]
    ctx.store.transact(operations)


def read(ctx: Context, tenant: str, name: str, limit: int) -> list[dict[str, Any]]:
    """The newest calls that wrote something, oldest first."""
    found: list[dict[str, Any]] = []
    for record in ctx.store.query(keys.function_log(tenant, name, "").pk, limit=CHUNKS_KEPT, reverse=True):
        found = [*record.body["lines"], *found]
        if len(found) >= limit:
            break
    return [{"at": format_time(each["at_ms"]), **{k: v for k, v in each.items() if k != "at_ms"}} for each in found][
        -limit:
    ]


def _chunks(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    chunks: list[list[dict[str, Any]]] = [[]]
    size = 0
    for line in lines:
        more = len(to_json(line)) + 1
        size += more
        if size > CHUNK_MAX and chunks[-1]:
            chunks.append([])
            size = more
        chunks[-1].append(line)
    return chunks
