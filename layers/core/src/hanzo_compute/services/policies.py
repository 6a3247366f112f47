"""Appraisal policies of a tenant: each put makes a version that never changes; the newest is the current one."""

from __future__ import annotations

import re
from typing import Any, Final

from hanzo_compute.attestation import policy as policies
from hanzo_compute.attestation.policy import Policy
from hanzo_compute.errors import FieldProblem, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import ABSENT, Body, Put, WriteConflict
from hanzo_compute.services.context import Context
from hanzo_compute.services.read import Page, decode_cursor, encode_cursor, invalid
from hanzo_compute.services.records import TRIES

DEFAULT: Final = "default"
"""The policy by which runners are appraised that want the key of a tenant's job."""
WITHOUT: Final = "production"
"""The built-in policy that stands in for it: it names no reference values, so nothing is released on it."""
POLICIES_MAX: Final = 100


def put(ctx: Context, tenant: str, name: str, text: str) -> dict[str, Any]:
    """Store a policy (YAML or JSON) as the next version of ``name``; its fields ``name`` and ``version`` are set.

    Raises:
        InvalidRequest: it is no policy, or there are too many.
    """
    if not re.fullmatch(policies.NAME, name) or name in policies.BUILTIN:
        raise invalid("name", "must be of a-z, 0-9 and '-', begin with a letter, and be of no built-in policy")
    given = policies.read(text)
    head = keys.policy(tenant, name)
    for _ in range(TRIES):
        record = ctx.store.get(head, fresh=True)
        if record is None:
            _admit(ctx, tenant)
        number = 1 if record is None else record.body["version"] + 1
        found = policies.from_document({**given, "name": name, "version": number})
        now, document = ctx.clock.now_ms(), found.model_dump(mode="json")
        body: Body = {"name": name, "version": number, "digest": found.digest(), "updated_ms": now}
        expect = ABSENT if record is None else record.rev
        try:
            ctx.store.transact(
                [
                    Put(head, body, expect=expect, index={keys.BY_TENANT: keys.policy_entry(tenant, name)}),
                    Put(keys.policy(tenant, name, number), {**body, "policy": document}, expect=ABSENT),
                ]
            )
        except WriteConflict:
            continue
        return _view(body)
    raise Unavailable(f"policy {name} is changing too fast", hint="try again", retry_after_s=1)


def show(ctx: Context, tenant: str, name: str, number: int | None = None) -> dict[str, Any]:
    """A version of a policy, or the current one, with all that it says.

    Raises:
        NotFound: there is none.
    """
    if name in policies.BUILTIN:
        found = policies.builtin(name)
        shown = {"name": name, "version": found.version, "digest": found.digest()}
        return shown | {"policy": found.model_dump(mode="json")}
    body = _find(ctx, tenant, name, number)
    if body is None:
        raise NotFound(f"there is no policy {name[:80]}", hint="GET /v1/attestation/policies lists yours")
    return _view(body) | {"policy": body["policy"]}


def listed(ctx: Context, tenant: str, *, cursor: str, limit: int) -> Page:
    """A tenant's policies by name."""
    after = decode_cursor(cursor, policies.NAME)
    partition = keys.policy_entry(tenant, "")[0]
    rows = ctx.store.query_index(keys.BY_TENANT, partition, after=after, limit=limit + 1)
    items = [_view(record.body) for _, record in rows[:limit]]
    return Page(items, encode_cursor(rows[limit - 1][0]) if len(rows) > limit else None)


def current(ctx: Context, tenant: str) -> Policy:
    """The policy by which runners are appraised for a tenant's jobs."""
    body = _find(ctx, tenant, DEFAULT, None)
    return policies.builtin(WITHOUT) if body is None else policies.from_document(body["policy"])


def _find(ctx: Context, tenant: str, name: str, number: int | None) -> Body | None:
    if not re.fullmatch(policies.NAME, name):
        return None
    if number is None:
        head = ctx.store.get(keys.policy(tenant, name), fresh=True)
        if head is None:
            return None
        number = int(head.body["version"])
    at = keys.policy(tenant, name, number)
    record = ctx.store.get(at) or ctx.store.get(at, fresh=True)
    return None if record is None else record.body


def _view(body: Body) -> dict[str, Any]:
    shown = {name: body[name] for name in ("name", "version", "digest")}
    return shown | {"updated_at": format_time(body["updated_ms"])}


def _admit(ctx: Context, tenant: str) -> None:
    partition = keys.policy_entry(tenant, "")[0]
    if ctx.store.count_index(keys.BY_TENANT, partition, POLICIES_MAX) >= POLICIES_MAX:
        problem = FieldProblem("name", f"you have {POLICIES_MAX} policies, which is the most", "too_many")
        raise InvalidRequest(problem.message, fields=[problem], hint="put a new version of one instead")
