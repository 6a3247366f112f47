"""Secrets of a tenant: set by name, read by functions that were granted them, shown by nothing.

Each value is sealed under a data key of its own, bound to tenant, name and version. Each call that reads one leaves a
record of that before it gets it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from hanzo_compute.errors import FieldProblem, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.capabilities import SECRET_FORM
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import ABSENT, Body, Check, Delete, Put, Record, WriteConflict
from hanzo_compute.security import envelope
from hanzo_compute.services.context import Context
from hanzo_compute.services.read import Page, decode_cursor, encode_cursor, invalid
from hanzo_compute.services.records import TRIES

_AUDIT_ID: Final = r"[0-9]{15}#[^#\x00-\x1f]{1,200}#[A-Za-z0-9_.-]{1,64}"


def put(ctx: Context, tenant: str, name: str, value: bytes) -> dict[str, Any]:
    """Set a secret, or replace it; returns it without its value.

    Raises:
        InvalidRequest: the name or the value is none, or there are too many secrets.
    """
    if not re.fullmatch(SECRET_FORM, name):
        raise invalid("name", "must be 1 to 64 of a-z, A-Z, 0-9, _, . and -, and begin with a letter")
    if not 0 < len(value) <= bounds.SECRET_VALUE_MAX:
        raise invalid("value", f"must have 1 to {bounds.SECRET_VALUE_MAX} bytes")
    at = keys.secret(tenant, name)
    for _ in range(TRIES):
        record = ctx.store.get(at, fresh=True)
        if record is None:
            _admit(ctx, tenant)
        now = ctx.clock.now_ms()
        version = 1 if record is None else record.body["version"] + 1
        body: Body = {
            "name": name,
            "version": version,
            "created_ms": now if record is None else record.body["created_ms"],
            "updated_ms": now,
            **envelope.seal(ctx.vault, _context(tenant, name, version), value),
        }
        expect = ABSENT if record is None else record.rev
        try:
            ctx.store.transact([Put(at, body, expect=expect, index=index(tenant, name))])
        except WriteConflict:
            continue
        return _view(body)
    raise Unavailable(f"secret {name} is changing too fast", hint="try again", retry_after_s=1)


def index(tenant: str, name: str) -> dict[str, tuple[str, str]]:
    """The index entries of a secret's record."""
    return {keys.BY_TENANT: keys.secret_entry(tenant, name)}


def remove(ctx: Context, tenant: str, name: str) -> None:
    """Remove a secret.

    Raises:
        NotFound: there is none of this name.
    """
    if not re.fullmatch(SECRET_FORM, name) or ctx.store.get(keys.secret(tenant, name), fresh=True) is None:
        raise NotFound(f"there is no secret {name[:80]}", hint="`hzc secret ls` lists your secrets")
    ctx.store.transact([Delete(keys.secret(tenant, name))])


def secrets(ctx: Context, tenant: str, *, cursor: str, limit: int) -> Page:
    """A tenant's secrets by name, without values."""
    after = decode_cursor(cursor, SECRET_FORM)
    partition = keys.secret_entry(tenant, "")[0]
    rows = ctx.store.query_index(keys.BY_TENANT, partition, after=after, limit=limit + 1)
    items = [_view(record.body) for _, record in rows[:limit]]
    return Page(items, encode_cursor(rows[limit - 1][0]) if len(rows) > limit else None)


def value(ctx: Context, tenant: str, name: str) -> bytes | None:
    """What a secret holds, for a function that was granted it and whose read was recorded; None: there is none."""
    at = keys.secret(tenant, name)
    record = ctx.store.get(at) or ctx.store.get(at, fresh=True)
    if record is None:
        return None
    return envelope.unseal(ctx.vault, _context(tenant, name, record.body["version"]), record.body)


def record_read(
    ctx: Context,
    tenant: str,
    reference: str,
    name: str,
    call: str,
    *,
    began_ms: int | None = None,
    guard: Sequence[Check] = (),
) -> None:
    """Write down that a call of a function (``name@version``) reads a secret; once for each call and secret.

    ``began_ms``, of a call that may ask several times, makes that one record; ``guard`` is what must hold for it.

    Raises:
        WriteConflict: the guard does not hold; then nothing is written.
    """
    now = ctx.clock.now_ms()
    at = keys.audit(tenant, now if began_ms is None else began_ms, call, name)
    if began_ms is not None and ctx.store.get(at) is not None:
        return  # it asks again
    expires = now + ctx.policy.audit_ms
    body = {"at_ms": now, "function": reference, "secret": name, "call": call, "expires_ms": expires}
    entry = {keys.BY_DUE: keys.expiry_entry(expires, at)}
    try:
        ctx.store.transact([Put(at, body, expect=ABSENT, index=entry), *guard])
    except WriteConflict as conflict:
        if any(each.key in conflict.current for each in guard):
            raise
        return  # it is written down: this is the same call, whose answer was lost


def reads(ctx: Context, tenant: str, *, secret: str | None, cursor: str, limit: int) -> Page:
    """Who read secrets, newest first. A page may be short although there are more: its cursor says so."""
    before = decode_cursor(cursor, _AUDIT_ID)
    rows = ctx.store.query(keys.audit_partition(tenant), after=before, limit=limit + 1, reverse=True)
    items = [_read_view(record) for record in rows[:limit] if secret in (None, record.body["secret"])]
    return Page(items, encode_cursor(rows[limit - 1].key.sk) if len(rows) > limit else None)


def _context(tenant: str, name: str, version: int) -> dict[str, str]:
    return {"tenant": tenant, "secret": name, "version": str(version)}


def _view(body: Body) -> dict[str, Any]:
    return {
        "name": body["name"],
        "version": body["version"],
        "created_at": format_time(body["created_ms"]),
        "updated_at": format_time(body["updated_ms"]),
    }


def _read_view(record: Record) -> dict[str, Any]:
    body = record.body
    shown = {name: body[name] for name in ("function", "secret", "call")}
    return {"at": format_time(body["at_ms"])} | shown


def _admit(ctx: Context, tenant: str) -> None:
    """Refuse one secret too many; what others set at the same moment may exceed the bound by as much."""
    partition = keys.secret_entry(tenant, "")[0]
    most = bounds.TENANT_SECRETS_MAX
    if ctx.store.count_index(keys.BY_TENANT, partition, most) >= most:
        problem = FieldProblem("name", f"you have {most} secrets, which is the most", "too_many")
        raise InvalidRequest(problem.message, fields=[problem], hint="remove one: hzc secret rm NAME")
