"""What a tenant reads of its functions."""

from __future__ import annotations

import re
from typing import Any

from hanzo_compute.model import keys
from hanzo_compute.model.registry import Function, Version
from hanzo_compute.model.spec import FUNCTION_NAME, VERSION_NUMBER
from hanzo_compute.services.context import Context
from hanzo_compute.services.functions import aliased, not_found, read, resolve
from hanzo_compute.services.read import Page, decode_cursor, encode_cursor, invalid


def function(ctx: Context, tenant: str, name: str) -> Function:
    """The function.

    Raises:
        NotFound: there is none of this name; the answer is the same for another tenant's.
    """
    found = read(ctx, tenant, name) or read(ctx, tenant, name, fresh=True)
    if found is None:
        raise not_found(name)
    return found


def version(ctx: Context, tenant: str, name: str, number: str) -> Version:
    """One version, by its number."""
    if not re.fullmatch(VERSION_NUMBER, number):
        raise invalid("version", "must be a number from 1 on", hint="aliases are under /aliases")
    return resolve(ctx, tenant, name, number, 0.0)


def functions(ctx: Context, tenant: str, *, cursor: str, limit: int) -> Page:
    """A tenant's functions, by name."""
    after = decode_cursor(cursor, FUNCTION_NAME)
    index_name, partition = keys.BY_TENANT, keys.function_entry(tenant, "")[0]
    rows = ctx.store.query_index(index_name, partition, after=after, limit=limit + 1)
    items = [Function.from_record(record.body).view() for _, record in rows[:limit]]
    shown = [{name: each[name] for name in ("name", "newest", "aliases", "created_at", "updated_at")} for each in items]
    return Page(shown, encode_cursor(rows[limit - 1][0]) if len(rows) > limit else None)


def alias(ctx: Context, tenant: str, name: str, alias: str) -> dict[str, Any]:
    """Where an alias points.

    Raises:
        NotFound: no such function or alias.
    """
    return alias_view(function(ctx, tenant, name), alias)


def alias_view(found: Function, alias: str) -> dict[str, Any]:
    """An alias of a function as its tenant sees it: where it points, and where it would go back to, newest last."""
    setting = aliased(found, alias).aliases[alias]
    return {"name": found.name, "alias": alias, "weights": setting.weights, "previous": setting.previous}


def versions(ctx: Context, tenant: str, name: str, *, cursor: str, limit: int) -> Page:
    """The versions of a function that are kept, newest first."""
    function(ctx, tenant, name)
    before = decode_cursor(cursor, rf"{keys.VERSION}[0-9]{{9}}")
    rows = ctx.store.query(
        keys.function_partition(tenant, name), prefix=keys.VERSION, after=before, limit=limit + 1, reverse=True
    )
    items = [Version.from_record(record.body).view() for record in rows[:limit]]
    return Page(items, encode_cursor(rows[limit - 1].key.sk) if len(rows) > limit else None)
