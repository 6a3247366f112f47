"""Routes of calls: with bytes in and bytes out, and as a site of its own."""

from __future__ import annotations

from typing import Annotated, Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Path, Query

from hanzo_compute.front import guest_http, problems
from hanzo_compute.front.api import Answer, Answers, reply, shape
from hanzo_compute.front.calls import calls
from hanzo_compute.front.streams import EVENT_STREAM
from hanzo_compute.security.authorizer import Action, authorize
from hanzo_compute.services import credentials, functions, invoke
from hanzo_compute.services.invoke import Answered
from hanzo_compute.wiring import container
from invoke.api import api

TOLD: Final = {
    "X-Function": "The version that was called.",
    "X-Invocation": "The id of the call, for its receipt.",
    "X-Wall-Us": "How long it ran, in microseconds.",
    "X-Fuel": "What it computed, if that is counted.",
}
BECAME: Final = Answer("It takes longer, and goes on as this job", shape("Job"), TOLD | {"Location": "The job's path."})
CALLED: Final[Answers] = {
    200: Answer(
        "What the function gave; `X-Output-…` is the blob of an output with another name",
        {guest_http.BYTES: {}, EVENT_STREAM: {"type": "string"}},
        TOLD,
    ),
    202: BECAME,
}
PAGE: Final[Answers] = {
    "2XX": Answer("The function's response", {"*/*": {}}, TOLD),
    202: BECAME,
    "default": Answer(
        "The function's response, which can have any status from 200 to 599, or a problem",
        {**shape("Problem", problems.MEDIA_TYPE), "*/*": {}},
    ),
}


@api.route(
    "POST",
    "/v1/functions/{name}/invoke",
    action=Action.SUBMIT,
    summary="Call a function",
    answers=CALLED,
    raw=True,
)
def call(name: str, ref: Annotated[str | None, Query(description="A version or an alias; else `live`.")] = None) -> Any:
    """The body is what the function gets, the answer what it gives. 202 with a job if it takes longer than 25 s.

    With `Accept: text/event-stream`, Server-Sent Events: `output` while it runs, then one `end`; never a job.
    """
    streamed = EVENT_STREAM in (api.event.get("headers") or {}).get("accept", "")
    data = guest_http.body(api.event)
    pending = invoke.begin(container(), api.caller.tenant, name, ref, data, streamed=streamed)
    return calls.run(pending, _rendered, api.request_id)


@api.route(
    "ANY",
    "/fn/{name}",
    action=None,
    asks=Action.SUBMIT,
    summary="The site of a function",
    answers=PAGE,
    raw=True,
)
def site(name: str) -> Any:
    """As `/fn/{name}/`."""
    return page(name, "")


@api.route(
    "ANY",
    "/fn/{name}/{path+}",
    action=None,
    asks=Action.SUBMIT,
    summary="A page of a function's site",
    answers=PAGE,
    raw=True,
)
def page(
    name: str, path: Annotated[str, Path(description="All that is left, slashes as they are; it may be empty.")]
) -> Any:
    """Method, path, query, headers and body go to the function; a response comes back, of any status.

    No credential is needed if it was deployed as `public`.
    """
    ctx = container()
    headers = api.event.get("headers") or {}
    principal = credentials.authenticate(ctx, headers.get("authorization"))
    tenant = functions.public_tenant(ctx, name) if principal is None else principal.tenant
    if tenant is None:
        authorize(principal, Action.SUBMIT)  # which nobody may do: it says how to become somebody
        raise functions.not_found(name)
    version = functions.resolve(ctx, tenant, name, None, functions.pick(ctx))
    if principal is not None or not version.spec["public"]:
        authorize(principal, Action.SUBMIT)
    request = guest_http.request(api.event, path, guest_http.body(api.event))
    pending = invoke.begin_version(ctx, tenant, version, request, stranger=principal is None)
    return calls.run(pending, _paged, api.request_id)


def _rendered(answered: Answered) -> Response[Any]:
    if answered.job is not None:
        return _became(answered)
    return guest_http.plain(answered.result.output, _told(answered))


def _paged(answered: Answered) -> Response[Any]:
    if answered.job is not None:
        return _became(answered)
    return guest_http.response(answered.result.output, _told(answered))


def _became(answered: Answered) -> Response[Any]:
    assert answered.job is not None
    return reply(
        answered.job.view(), status=202, headers={"Location": f"/v1/jobs/{answered.job.id}", **_told(answered)}
    )


def _told(answered: Answered) -> dict[str, str]:
    told = {
        "X-Function": answered.reference,
        "X-Invocation": answered.id,
        "X-Wall-Us": str(answered.result.wall_us),
    }
    if answered.result.fuel is not None:
        told["X-Fuel"] = str(answered.result.fuel)
    return told | {f"X-Output-{name}": blob for name, blob in answered.outputs.items()}
