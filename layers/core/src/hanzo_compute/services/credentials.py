"""API keys: shown once, stored as a hash, each with a tenant and a role."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import keys
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, Delete, Operation, Put, WriteConflict
from hanzo_compute.security.authorizer import Principal, Role
from hanzo_compute.services.context import Context

FORM: Final = re.compile(r"hzk_([0-9A-HJKMNP-TV-Z]{26})_([A-Za-z0-9_-]{43})")
TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DEFAULT_TENANT: Final = "default"
AGENTS_TENANT: Final = "platform"


def _hash(secret: str) -> str:
    # The secret is 256 random bits: a plain hash cannot be searched, so no slow one is needed.
    return hashlib.sha256(secret.encode()).hexdigest()


def create(ctx: Context, tenant: str, role: Role, name: str) -> str:
    """A new key; the text that is returned exists nowhere else.

    Raises:
        InvalidRequest: the tenant's name has other characters than records and folders can carry.
    """
    if not TENANT.fullmatch(tenant):
        raise InvalidRequest(f"{tenant!r} is no tenant", hint="names are of a-z A-Z 0-9 . _ -, at most 64 characters")
    key, operation = _new(ctx, tenant, role, name)
    ctx.store.transact([operation])
    return key


def _new(ctx: Context, tenant: str, role: Role, name: str) -> tuple[str, Put]:
    now = ctx.clock.now_ms()
    key_id, secret = ctx.ids.new("k", now).removeprefix("k-"), ctx.ids.token()
    body = {
        "hash": _hash(secret),
        "tenant": tenant,
        "role": role.value,
        "name": name,
        "created_ms": now,
    }
    return f"hzk_{key_id}_{secret}", Put(keys.credential(key_id), body, expect=ABSENT)


def authenticate(ctx: Context, header: str | None) -> Principal | None:
    """Who sent this ``Authorization`` header; None when that is not known."""
    scheme, _, value = (header or "").partition(" ")
    match = FORM.fullmatch(value.strip())
    if scheme.lower() != "bearer" or match is None:
        return None
    record = ctx.store.get(keys.credential(match[1]))
    if record is None or not hmac.compare_digest(record.body["hash"], _hash(match[2])):
        return None
    return Principal(match[1], record.body["tenant"], Role(record.body["role"]))


def ensure_owner(ctx: Context) -> str | None:
    """The owner's key if there was none yet, else None: it was shown when it was made."""
    marker = Key("PROVISIONED#owner", "-")
    if ctx.store.get(marker, fresh=True) is not None:
        return None
    key, operation = _new(ctx, DEFAULT_TENANT, Role.OWNER, "owner")
    try:
        ctx.store.transact([operation, Put(marker, {"key": operation.key.pk}, expect=ABSENT)])
    except WriteConflict:
        return None
    return key


def ensure_runner(ctx: Context) -> str:
    """A new key for the host's own agents, which replaces the one of the last start."""
    marker = Key("PROVISIONED#runner", "-")
    earlier = ctx.store.get(marker, fresh=True)
    key, operation = _new(ctx, AGENTS_TENANT, Role.RUNNER, "host agents")
    expect = ABSENT if earlier is None else earlier.rev
    operations: list[Operation] = [operation, Put(marker, {"key": operation.key.pk}, expect=expect)]
    if earlier is not None:
        operations.append(Delete(Key(earlier.body["key"], "-")))
    try:
        ctx.store.transact(operations)
    except WriteConflict:  # another one starts now: the later start has the key that stays
        return ensure_runner(ctx)
    return key
