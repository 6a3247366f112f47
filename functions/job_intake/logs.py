"""The route of logs: pages, long polls, and Server-Sent Events."""

from __future__ import annotations

from typing import Annotated, Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Header, Query
from pydantic_core import to_json

from hanzo_compute.front.api import Answer, Answers, reply, shape, waiting
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import LogEntry
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import read
from hanzo_compute.services.read import LogRead
from hanzo_compute.wiring import container
from job_intake.api import api

EVENT_STREAM = "text/event-stream"
RENEW_S = 10
"""A stream asks again this often: that keeps its job marked as followed."""
LOG: Final[Answers] = {
    200: Answer(
        "A page of entries, or a stream of them",
        {**shape("LogPage"), EVENT_STREAM: {"type": "string"}},
    )
}


@api.route("GET", "/v1/jobs/{id}/logs", action=Action.READ, summary="Read or follow a job's log", answers=LOG)
def job_logs(
    id: str,  # noqa: A002
    cursor: Annotated[str, Query(max_length=512, description="`cursor` of the page before.")] = "",
    follow: Annotated[bool, Query(description="Wait for what comes; the agent sends its log every second.")] = False,
    wait_s: Annotated[float, Query(ge=0, le=bounds.WAIT_S_MAX, description="How long to wait.")] = bounds.WAIT_S_MAX,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Of a stream: go on after this event.")
    ] = None,
) -> Response[str]:
    """All attempts in order, what is there first. With `Accept: text/event-stream`, Server-Sent Events.

    A stream gives `log` events, then one `end` event with the job's state; it resumes by `Last-Event-ID`.
    """
    headers = api.event.get("headers") or {}
    streamed = EVENT_STREAM in headers.get("accept", "")
    cursor = (last_event_id if streamed else None) or cursor
    found = read.logs(container(), api.caller.tenant, id, cursor=cursor, follow=follow or streamed)
    wake = [keys.log_partition(id), keys.job_partition(id)]
    if streamed:
        return _stream(found, wake)
    items = [_entry(entry) for entry in found.page.entries]
    response = reply({"items": items, "cursor": found.page.cursor, "done": found.done})
    if follow and wait_s and not items and not found.done:
        return waiting(response, wake, wait_s)
    return response


def _stream(found: LogRead, wake: list[str]) -> Response[str]:
    events = [f"event: log\ndata: {to_json(_entry(entry)).decode()}\n" for entry in found.page.entries]
    if events:
        events[-1] += f"id: {found.page.cursor}\n"
    if found.done:
        events.append(f"event: end\ndata: {to_json({'state': found.job.state.value}).decode()}\n")
    body = "".join(event + "\n" for event in events) or ": nothing yet\n\n"
    response: Response[str] = Response(200, EVENT_STREAM, body, headers={"Cache-Control": "no-store"})
    if found.done:
        return response
    response.headers["hzc-stream"] = found.page.cursor
    return waiting(response, wake, 0 if events else RENEW_S)


def _entry(entry: LogEntry) -> dict[str, Any]:
    return {"at": format_time(entry.at_ms), "stream": entry.stream, "text": entry.text}
