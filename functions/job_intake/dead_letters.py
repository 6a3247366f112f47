"""Routes of dead letters: jobs that the platform gave up."""

from __future__ import annotations

from aws_lambda_powertools.event_handler import Response

from hanzo_compute.front.api import listed, reply
from hanzo_compute.model import bounds
from hanzo_compute.model.states import State
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import read, submit
from hanzo_compute.services.submit import check_idempotency_key
from hanzo_compute.wiring import container
from job_intake.api import api
from job_intake.jobs import CREATED, Cursor, IdempotencyKey, Limit, created


@api.route(
    "GET",
    "/v1/dead-letters",
    action=Action.READ,
    summary="List jobs that the platform gave up",
    answers=listed("JobSummary"),
)
def dead_letters(cursor: Cursor = "", limit: Limit = bounds.PAGE_DEFAULT) -> Response[str]:
    """Jobs in state `dead`, newest first, each with the reason."""
    page = read.jobs(container(), api.caller.tenant, state=State.DEAD, label=None, cursor=cursor, limit=limit)
    return reply(page.as_json())


@api.route("POST", "/v1/dead-letters/{id}/redrive", action=Action.SUBMIT, summary="Submit again", answers=CREATED)
def redrive(id: str, idempotency_key: IdempotencyKey = None) -> Response[str]:  # noqa: A002
    """A new job with the spec of a dead one, linked to it. 409 for a job that is not dead."""
    key = check_idempotency_key(idempotency_key)
    return created(submit.resubmit(container(), api.caller.tenant, id, kind="redrive", idempotency_key=key))
