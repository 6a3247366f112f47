"""Routes of jobs: submit, list, look at, cancel, rerun."""

from __future__ import annotations

from typing import Annotated, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Query

from hanzo_compute.front.api import Answer, Answers, listed, reply, shape, shaped, waiting
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.spec import JobSpec, digest
from hanzo_compute.model.states import State
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import cancel, pricing, read, submit
from hanzo_compute.services.expand import expand
from hanzo_compute.services.submit import Submitted, check_idempotency_key
from hanzo_compute.wiring import container
from job_intake.api import api

Limit = Annotated[int, Query(ge=1, le=bounds.PAGE_MAX, description="Items in one page.")]
Cursor = Annotated[str, Query(max_length=512, description="`next_cursor` of the page before.")]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="Repeating a call with the same key and body has no further effect."),
]

CREATED: Final[Answers] = {
    201: Answer("The new job", shape("Job"), {"Location": "Its path."}),
    200: Answer(
        "The job that the same key made before",
        shape("Job"),
        {"Location": "Its path.", "Idempotency-Replayed": "`true`"},
    ),
}


def created(submitted: Submitted) -> Response[str]:
    """201 for a new job, 200 for one that the same key had made before."""
    headers = {"Location": f"/v1/jobs/{submitted.job.id}"}
    if submitted.replayed:
        return reply(submitted.job.view(), headers=headers | {"Idempotency-Replayed": "true"})
    return reply(submitted.job.view(), status=201, headers=headers)


@api.route("POST", "/v1/jobs", action=Action.SUBMIT, summary="Submit a job", answers=CREATED)
def submit_job(spec: Annotated[JobSpec, Body()], idempotency_key: IdempotencyKey = None) -> Response[str]:
    """Accept a job. A 2xx means that it is stored durably and will end in exactly one outcome."""
    key = check_idempotency_key(idempotency_key)
    return created(submit.submit(container(), api.caller.tenant, spec, idempotency_key=key))


@api.route(
    "POST",
    "/v1/validate",
    action=Action.READ,
    summary="Check a job spec without submitting it",
    answers=shaped("CheckedSpec"),
)
def validate(spec: Annotated[JobSpec, Body()]) -> Response[str]:
    """Check all that submitting would check, and show the spec with its defaults."""
    spec = expand(container(), api.caller.tenant, spec)
    runtimes = submit.check(container(), api.caller.tenant, spec)
    pricing.quotes(container(), spec, runtimes)
    shown = spec.as_json()
    return reply({"valid": True, "spec": shown, "digest": digest(shown)})


@api.route("GET", "/v1/jobs", action=Action.READ, summary="List jobs, newest first", answers=listed("JobSummary"))
def list_jobs(
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    label: Annotated[str | None, Query(max_length=130, description="Only jobs with this label: name=value.")] = None,
    cursor: Cursor = "",
    limit: Limit = bounds.PAGE_DEFAULT,
) -> Response[str]:
    """A page may be short and still have a `next_cursor`: go on until it is null."""
    page = read.jobs(container(), api.caller.tenant, state=state, label=label, cursor=cursor, limit=limit)
    return reply(page.as_json())


@api.route(
    "GET",
    "/v1/jobs/{id}",
    action=Action.READ,
    summary="Look at a job, or wait until its state changes",
    answers=shaped("Job"),
)
def get_job(
    id: str,  # noqa: A002
    wait_s: Annotated[float, Query(ge=0, le=bounds.WAIT_S_MAX, description="Wait this long for a change.")] = 0,
    seen_state: Annotated[State | None, Query(description="The state to wait for a change from.")] = None,
) -> Response[str]:
    """The job with its spec, and the outcome of its last attempt once there is one."""
    shown = read.job(container(), api.caller.tenant, id)
    response = reply(shown)
    if wait_s and shown["state"] == seen_state and not State(shown["state"]).terminal:
        return waiting(response, [keys.job_partition(id)], wait_s)
    return response


@api.route(
    "GET",
    "/v1/jobs/{id}/events",
    action=Action.READ,
    summary="What happened to a job, oldest first",
    answers=listed("JobEvent"),
)
def job_events(id: str, cursor: Cursor = "", limit: Limit = bounds.PAGE_DEFAULT) -> Response[str]:  # noqa: A002
    """Events are numbered from 1 without gaps and never change."""
    return reply(read.events(container(), api.caller.tenant, id, cursor=cursor, limit=limit).as_json())


@api.route(
    "GET",
    "/v1/jobs/{id}/result",
    action=Action.READ,
    summary="The outcome of a job that has ended",
    answers=shaped("JobResult"),
)
def job_result(id: str) -> Response[str]:  # noqa: A002
    """409 while the job has not ended."""
    return reply(read.result(container(), api.caller.tenant, id))


@api.route(
    "GET",
    "/v1/jobs/{id}/outputs",
    action=Action.READ,
    summary="The outputs of a job that has ended",
    answers=listed("JobOutput"),
)
def job_outputs(id: str) -> Response[str]:  # noqa: A002
    """Small outputs inline in base64, larger ones behind a URL that needs no credential for 15 minutes."""
    return reply(read.outputs(container(), api.caller.tenant, id).as_json())


@api.route(
    "POST",
    "/v1/jobs/{id}/cancel",
    action=Action.CANCEL,
    summary="Cancel a job that has not ended",
    answers=shaped("Job"),
)
def cancel_job(id: str) -> Response[str]:  # noqa: A002
    """A job that runs is asked to stop: look again for its outcome. Cancelling twice is the same as once."""
    return reply(cancel.cancel(container(), api.caller.tenant, id).view())


@api.route("POST", "/v1/jobs/{id}/rerun", action=Action.SUBMIT, summary="Submit the job again", answers=CREATED)
def rerun_job(id: str, idempotency_key: IdempotencyKey = None) -> Response[str]:  # noqa: A002
    """A new job with the same spec, except for its deadline, linked to this one."""
    key = check_idempotency_key(idempotency_key)
    return created(submit.resubmit(container(), api.caller.tenant, id, kind="rerun", idempotency_key=key))
