"""Routes of the key-value entries of a function."""

from __future__ import annotations

from typing import Annotated, Literal

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query
from pydantic import Field

from hanzo_compute.front.api import listed, reply, shaped
from hanzo_compute.model import bounds
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import entries, kv
from hanzo_compute.wiring import container
from job_intake.api import api
from job_intake.jobs import Cursor, Limit
from job_intake.values import Value

Encoding = Annotated[
    Literal["text", "base64url"], Query(description="How the key is written: for those that no path holds, base64url.")
]
Expect = Annotated[
    int,
    Query(ge=kv.ANY, le=2**53, description="-1: whatever is there; 0: nothing; else the version that must be there."),
]


class NewEntry(Value):
    """A value, and what it replaces."""

    expect: int = Field(
        default=kv.ANY, ge=kv.ANY, le=2**53, description="-1: whatever is there; 0: nothing; else this version."
    )


@api.route(
    "GET",
    "/v1/functions/{name}/kv",
    action=Action.READ,
    summary="List a function's key-value entries",
    answers=listed("KeyValue"),
)
def list_entries(
    name: str,
    prefix: Annotated[str, Query(max_length=700, description="Only keys that begin so.")] = "",
    encoding: Encoding = "text",
    cursor: Cursor = "",
    limit: Limit = bounds.PAGE_DEFAULT,
) -> Response[str]:
    """By key, without values. A page may be short and still have a `next_cursor`: go on until it is null."""
    start = entries.decode_key(prefix, encoding, "prefix")
    tenant = api.caller.tenant
    return reply(entries.entries(container(), tenant, name, prefix=start, cursor=cursor, limit=limit).as_json())


@api.route(
    "GET", "/v1/functions/{name}/kv/{key}", action=Action.READ, summary="Read an entry", answers=shaped("KeyValue")
)
def get_entry(name: str, key: str, encoding: Encoding = "text") -> Response[str]:
    """With its version, to be given as `expect`."""
    return reply(entries.get(container(), api.caller.tenant, name, entries.decode_key(key, encoding)))


@api.route(
    "PUT", "/v1/functions/{name}/kv/{key}", action=Action.DEPLOY, summary="Write an entry", answers=shaped("KeyValue")
)
def put_entry(name: str, key: str, entry: Annotated[NewEntry, Body()], encoding: Encoding = "text") -> Response[str]:
    """409 if it is not as expected."""
    raw = entries.decode_key(key, encoding)
    return reply(entries.put(container(), api.caller.tenant, name, raw, entry.data, entry.expect))


@api.route(
    "DELETE",
    "/v1/functions/{name}/kv/{key}",
    action=Action.DEPLOY,
    summary="Remove an entry",
    answers=shaped("Removed"),
)
def remove_entry(name: str, key: str, encoding: Encoding = "text", expect: Expect = kv.ANY) -> Response[str]:
    """409 if it is not as expected."""
    entries.remove(container(), api.caller.tenant, name, entries.decode_key(key, encoding), expect)
    return reply({"name": name, "removed": True})
