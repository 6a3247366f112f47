"""Routes of schedules: jobs that are submitted again and again."""

from __future__ import annotations

import re
from typing import Annotated, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header

from hanzo_compute.front.api import Answer, Answers, listed, reply, shape
from hanzo_compute.model import bounds
from hanzo_compute.model.schedule import ScheduleSpec
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import read, schedules
from hanzo_compute.wiring import container
from job_intake.api import api
from job_intake.jobs import Cursor, Limit

IfMatch = Annotated[str | None, Header(alias="If-Match", description="The revision that it must have, in quotes.")]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="`*`: there must be none yet.")]

REVISION: Final = {"ETag": "Its revision, for `If-Match`."}
PUT: Final[Answers] = {
    201: Answer("The new schedule", shape("Schedule"), {"Location": "Its path."} | REVISION),
    200: Answer("The schedule as it is now", shape("Schedule"), {"Location": "Its path."} | REVISION),
}
SHOWN: Final[Answers] = {200: Answer("The schedule", shape("Schedule"), REVISION)}


def _expected(if_match: str | None, if_none_match: str | None = None) -> int | None:
    if if_none_match is not None:
        if if_none_match.strip() != "*" or if_match is not None:
            raise read.invalid("If-None-Match", "can only be *, and not beside If-Match")
        return 0
    if if_match is None or if_match.strip() == "*":
        return None
    found = re.fullmatch(r'\s*"?([1-9][0-9]{0,14})"?\s*', if_match)
    if found is None:
        raise read.invalid("If-Match", "is not the revision of a schedule", hint='give it as it was shown, like "3"')
    return int(found[1])


@api.route("PUT", "/v1/schedules/{name}", action=Action.SUBMIT, summary="Create or replace a schedule", answers=PUT)
def put_schedule(
    name: str,
    spec: Annotated[ScheduleSpec, Body()],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response[str]:
    """201 for a new one. The same again changes nothing. 409 if it has another revision than `If-Match` says."""
    tenant = api.caller.tenant
    stored = schedules.put(container(), tenant, name, spec, expect=_expected(if_match, if_none_match))
    headers = {"Location": f"/v1/schedules/{name}", "ETag": f'"{stored.schedule.revision}"'}
    return reply(stored.schedule.summary(), status=201 if stored.created else 200, headers=headers)


@api.route("GET", "/v1/schedules", action=Action.READ, summary="List schedules by name", answers=listed("Schedule"))
def list_schedules(cursor: Cursor = "", limit: Limit = bounds.PAGE_DEFAULT) -> Response[str]:
    """Go on until `next_cursor` is null."""
    return reply(schedules.schedules(container(), api.caller.tenant, cursor=cursor, limit=limit).as_json())


@api.route("GET", "/v1/schedules/{name}", action=Action.READ, summary="Look at a schedule", answers=SHOWN)
def get_schedule(name: str) -> Response[str]:
    """The schedule with its jobs and the next five times. `spec` is what a PUT takes."""
    shown = schedules.get(container(), api.caller.tenant, name)
    return reply(shown, headers={"ETag": f'"{shown["revision"]}"'})


@api.route(
    "GET",
    "/v1/schedules/{name}/runs",
    action=Action.READ,
    summary="The last runs of a schedule",
    answers=listed("ScheduleRun"),
)
def schedule_runs(name: str) -> Response[str]:
    """The last 50, newest first: the time, the ids of its jobs, and what was refused."""
    return reply(schedules.runs(container(), api.caller.tenant, name).as_json())


@api.route("DELETE", "/v1/schedules/{name}", action=Action.CANCEL, summary="Delete a schedule")
def delete_schedule(name: str, if_match: IfMatch = None) -> Response[str]:
    """Jobs that it has submitted are not touched."""
    schedules.delete(container(), api.caller.tenant, name, expect=_expected(if_match))
    return reply({"name": name, "deleted": True})
