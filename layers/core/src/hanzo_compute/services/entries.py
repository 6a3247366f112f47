"""The key-value entries of a function as its owner sees them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from hanzo_compute.errors import Conflict, InvalidRequest, NotFound
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.spec import FUNCTION_NAME, format_time
from hanzo_compute.ports import GuestRefusal, Record, Status
from hanzo_compute.services import function_views, kv
from hanzo_compute.services.context import Context
from hanzo_compute.services.functions import not_found
from hanzo_compute.services.read import Page, decode_cursor, encode_cursor, invalid
from hanzo_compute.services.records import TRIES

STEP: Final = 16
"""Records that a listing reads at a time: each may hold a large value."""
READ_MAX: Final = 4 * bounds.MIB
"""Bytes of values that a listing reads for one page."""


def decode_key(text: str, encoding: str, field: str = "key") -> bytes:
    """The key that a path or parameter names: text in UTF-8, or base64url. Raises InvalidRequest."""
    if encoding == "base64url":
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise invalid(field, "is no base64url", hint="or leave out encoding=base64url") from None
    else:
        key = text.encode("utf-8", "surrogatepass")
    if len(key) > bounds.KV_KEY_MAX or (field == "key" and not key):
        raise invalid(field, f"must have 1 to {bounds.KV_KEY_MAX} bytes")
    return key


def get(ctx: Context, tenant: str, function: str, key: bytes) -> dict[str, Any]:
    """An entry with its value.

    Raises:
        NotFound: there is none.
    """
    _check_name(function)
    at = keys.kv(tenant, function, key)
    record = ctx.store.get(at) or ctx.store.get(at, fresh=True)
    if record is None or (value := kv.value_of(record)) is None:
        raise _no_entry(function, key)
    try:
        shown = {"value": value.decode()}
    except UnicodeDecodeError:
        shown = {"value_base64": base64.b64encode(value).decode()}
    return _view(record, key, len(value)) | shown


def put(ctx: Context, tenant: str, function: str, key: bytes, value: bytes, expect: int) -> dict[str, Any]:
    """Write an entry; returns it without its value.

    Raises:
        NotFound: no such function.
        Conflict: the entry is not as expected.
    """
    function_views.function(ctx, tenant, function)
    session = _change(ctx, tenant, function, key, expect, value)
    found = session.get(key)
    assert found is not None
    return _named(key) | {"version": found[1], "size": len(value)}


def remove(ctx: Context, tenant: str, function: str, key: bytes, expect: int) -> None:
    """Remove an entry.

    Raises:
        NotFound: there is none.
        Conflict: it is not as expected.
    """
    _check_name(function)
    _change(ctx, tenant, function, key, expect, None)


def entries(ctx: Context, tenant: str, function: str, *, prefix: bytes, cursor: str, limit: int) -> Page:
    """Entries by key, without their values. A page may be short although there are more: its cursor says so."""
    _check_name(function)
    after = decode_cursor(cursor, r"([0-9a-f]{2})+")
    partition, start = keys.kv_partition(tenant, function), prefix.hex()
    items: list[dict[str, Any]] = []
    read = 0
    while len(items) < limit and read <= READ_MAX:
        wanted = min(STEP, limit - len(items))
        rows = ctx.store.query(partition, prefix=start, after=after, limit=wanted)
        for record in rows:
            value = kv.value_of(record)
            if value is not None:
                items.append(_view(record, bytes.fromhex(record.key.sk), len(value)))
                read += len(value)
        if len(rows) < wanted:
            return Page(items, None)
        after = rows[-1].key.sk
    more = ctx.store.query(partition, prefix=start, after=after, limit=1)
    return Page(items, encode_cursor(after) if more else None)


def _change(ctx: Context, tenant: str, function: str, key: bytes, expect: int, value: bytes | None) -> kv.Session:
    if expect < kv.ANY:
        raise invalid("expect", "must be -1 for whatever is there, 0 for nothing, or a version")
    for attempt in range(TRIES):
        session = kv.Session(ctx, tenant, function, fresh=True)
        there = session.get(key)
        try:
            if value is not None:
                done = session.put(key, value, expect)
            elif there is None:
                raise _no_entry(function, key)
            else:
                done = session.delete(key, expect)
        except GuestRefusal as refusal:
            raise InvalidRequest(refusal.why, fields=invalid("value", refusal.why).fields) from None
        if done is Status.CONFLICT:
            version = there[1] if there else 0
            raise Conflict(
                f"the entry is of version {version}, not {expect}" if version else "there is no such entry",
                hint="read it again, and give its version as expect",
                version=version,
            )
        try:
            session.commit()
        except Conflict:
            if attempt < TRIES - 1:
                continue
            raise
        return session
    raise AssertionError("unreachable")


def _view(record: Record, key: bytes, size: int) -> dict[str, Any]:
    body = record.body
    return _named(key) | {"version": body["version"], "size": size, "updated_at": format_time(body["at_ms"])}


def _named(key: bytes) -> dict[str, Any]:
    shown: dict[str, Any] = {"key_base64url": encode_key(key)}
    try:
        return {"key": key.decode()} | shown
    except UnicodeDecodeError:
        return {"key": None} | shown


def encode_key(key: bytes) -> str:
    """A key in base64url, as paths take it."""
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def _no_entry(function: str, key: bytes) -> NotFound:
    shown = key.decode("utf-8", "backslashreplace")[:80]
    return NotFound(f"function {function} has no entry {shown!r}", hint=f"`hzc fn kv ls {function}` lists them")


def _check_name(function: str) -> None:
    if not re.fullmatch(FUNCTION_NAME, function):
        raise not_found(function)
