"""Routes of functions: deploy, look at, point aliases, roll back, remove."""

from __future__ import annotations

from typing import Annotated, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query
from pydantic import BaseModel, ConfigDict, Field

from hanzo_compute.front.api import Answer, Answers, listed, reply, shape, shaped
from hanzo_compute.model import bounds
from hanzo_compute.model.function import AliasSetting, FunctionSpec
from hanzo_compute.model.registry import LIVE
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import function_logs, function_views, functions
from hanzo_compute.wiring import container
from job_intake.api import api
from job_intake.jobs import Cursor, Limit

DEPLOYED: Final[Answers] = {
    201: Answer("The new version", shape("DeployedVersion"), {"Location": "Its path."}),
    200: Answer("The newest version, which is just this", shape("DeployedVersion"), {"Location": "Its path."}),
}


class Rollback(BaseModel):
    """Which alias goes back."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    alias: str = Field(default=LIVE, description="The alias that goes back to where it pointed before.")


@api.route(
    "PUT", "/v1/functions/{name}", action=Action.DEPLOY, summary="Deploy a version of a function", answers=DEPLOYED
)
def deploy(
    name: str,
    spec: Annotated[FunctionSpec, Body()],
    publish: Annotated[bool, Query(description="Point the alias `live` at it.")] = True,
) -> Response[str]:
    """201 with a new version; 200 with the newest one if its spec is just this."""
    made = functions.deploy(container(), api.caller.tenant, name, spec, publish=publish)
    shown = made.version.view() | {"aliases": made.function.view()["aliases"]}
    headers = {"Location": f"/v1/functions/{name}/versions/{made.version.number}"}
    return reply(shown, status=201 if made.created else 200, headers=headers)


@api.route(
    "GET", "/v1/functions", action=Action.READ, summary="List functions by name", answers=listed("FunctionSummary")
)
def list_functions(cursor: Cursor = "", limit: Limit = bounds.PAGE_DEFAULT) -> Response[str]:
    """With their aliases."""
    return reply(function_views.functions(container(), api.caller.tenant, cursor=cursor, limit=limit).as_json())


@api.route("GET", "/v1/functions/{name}", action=Action.READ, summary="Look at a function", answers=shaped("Function"))
def get_function(name: str) -> Response[str]:
    """Its versions, its aliases and their last changes."""
    return reply(function_views.function(container(), api.caller.tenant, name).view())


@api.route(
    "DELETE",
    "/v1/functions/{name}",
    action=Action.DEPLOY,
    summary="Remove a function with its versions",
    answers=shaped("Removed"),
)
def remove_function(name: str) -> Response[str]:
    """Jobs that were made of it keep what they run. Version numbers go on if it is deployed again."""
    functions.delete(container(), api.caller.tenant, name)
    return reply({"name": name, "removed": True})


@api.route(
    "GET",
    "/v1/functions/{name}/versions",
    action=Action.READ,
    summary="List versions, newest first",
    answers=listed("Version"),
)
def list_versions(name: str, cursor: Cursor = "", limit: Limit = bounds.PAGE_DEFAULT) -> Response[str]:
    """Those that are kept, with their specs."""
    page = function_views.versions(container(), api.caller.tenant, name, cursor=cursor, limit=limit)
    return reply(page.as_json())


@api.route(
    "GET",
    "/v1/functions/{name}/versions/{version}",
    action=Action.READ,
    summary="Look at a version",
    answers=shaped("Version"),
)
def get_version(name: str, version: str) -> Response[str]:
    """A version never changes."""
    return reply(function_views.version(container(), api.caller.tenant, name, version).view())


@api.route(
    "PUT",
    "/v1/functions/{name}/aliases/{alias}",
    action=Action.DEPLOY,
    summary="Point an alias",
    answers=shaped("Alias"),
)
def set_alias(name: str, alias: str, setting: Annotated[AliasSetting, Body()]) -> Response[str]:
    """At one version, or at several with the percentage of calls that each gets."""
    found = functions.set_alias(container(), api.caller.tenant, name, alias, setting)
    return reply(function_views.alias_view(found, alias))


@api.route(
    "GET",
    "/v1/functions/{name}/aliases/{alias}",
    action=Action.READ,
    summary="Look at an alias",
    answers=shaped("Alias"),
)
def get_alias(name: str, alias: str) -> Response[str]:
    """Where it points, and where it would go back to, the newest last."""
    return reply(function_views.alias(container(), api.caller.tenant, name, alias))


@api.route(
    "DELETE",
    "/v1/functions/{name}/aliases/{alias}",
    action=Action.DEPLOY,
    summary="Remove an alias",
    answers=shaped("Function"),
)
def remove_alias(name: str, alias: str) -> Response[str]:
    """Any but `live`."""
    return reply(functions.remove_alias(container(), api.caller.tenant, name, alias).view())


@api.route(
    "POST",
    "/v1/functions/{name}/rollback",
    action=Action.DEPLOY,
    summary="Take back an alias's last change",
    answers=shaped("Alias"),
)
def rollback(name: str, which: Annotated[Rollback, Body()]) -> Response[str]:
    """Again, and it goes back one more; 409 when there is nothing earlier."""
    found = functions.rollback(container(), api.caller.tenant, name, which.alias)
    return reply(function_views.alias_view(found, which.alias))


@api.route(
    "GET",
    "/v1/functions/{name}/logs",
    action=Action.READ,
    summary="What the calls of a function wrote",
    answers=shaped("FunctionLogs"),
)
def function_logs_of(name: str, limit: Limit = bounds.PAGE_MAX) -> Response[str]:
    """The newest calls that wrote to standard error, logged or failed; oldest first, about a second late."""
    function_views.function(container(), api.caller.tenant, name)
    return reply({"items": function_logs.read(container(), api.caller.tenant, name, limit)})
