"""Routes of secrets: set, list, remove - there is none that shows one - and who has read them."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query

from hanzo_compute.front.api import listed, reply, shaped
from hanzo_compute.model import bounds
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import secrets
from hanzo_compute.wiring import container
from job_intake.api import api
from job_intake.jobs import Cursor, Limit
from job_intake.values import Value


@api.route("GET", "/v1/secrets", action=Action.READ, summary="List secrets by name", answers=listed("Secret"))
def list_secrets(cursor: Cursor = "", limit: Limit = bounds.PAGE_DEFAULT) -> Response[str]:
    """With versions and times; values are never shown."""
    return reply(secrets.secrets(container(), api.caller.tenant, cursor=cursor, limit=limit).as_json())


@api.route("PUT", "/v1/secrets/{name}", action=Action.SECRETS, summary="Set a secret", answers=shaped("Secret"))
def put_secret(name: str, value: Annotated[Value, Body()]) -> Response[str]:
    """Functions that were granted it read the new value from their next call on."""
    return reply(secrets.put(container(), api.caller.tenant, name, value.data))


@api.route("DELETE", "/v1/secrets/{name}", action=Action.SECRETS, summary="Remove a secret", answers=shaped("Removed"))
def remove_secret(name: str) -> Response[str]:
    """Functions do not find it any more."""
    secrets.remove(container(), api.caller.tenant, name)
    return reply({"name": name, "removed": True})


@api.route(
    "GET",
    "/v1/audit",
    action=Action.READ,
    summary="Which calls have read secrets, newest first",
    answers=listed("SecretRead"),
)
def list_reads(
    secret: Annotated[str | None, Query(max_length=64, description="Only of this secret.")] = None,
    cursor: Cursor = "",
    limit: Limit = bounds.PAGE_DEFAULT,
) -> Response[str]:
    """Kept for 90 days. A page may be short and still have a `next_cursor`: go on until it is null."""
    return reply(secrets.reads(container(), api.caller.tenant, secret=secret, cursor=cursor, limit=limit).as_json())
