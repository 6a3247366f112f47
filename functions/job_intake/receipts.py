"""The route of receipts."""

from __future__ import annotations

from typing import Annotated, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from hanzo_compute.front.api import Answer, Answers, reply, waiting
from hanzo_compute.model import bounds, keys
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import receipts
from hanzo_compute.wiring import container
from job_intake.api import api

RECEIPT: Final[Answers] = {
    200: Answer("The receipt"),
    202: Answer("`pending`: no checkpoint covers it yet", headers={"Retry-After": "Seconds until it may be there."}),
}


@api.route(
    "GET",
    "/v1/jobs/{id}/receipt",
    action=Action.READ,
    summary="What a job was and cost, with its proof",
    answers=RECEIPT,
)
def receipt(
    id: str,  # noqa: A002
    attempt: Annotated[int | None, Query(ge=1, le=2**31, description="An earlier attempt that was billed.")] = None,
    wait_s: Annotated[float, Query(ge=0, le=bounds.WAIT_S_MAX, description="Wait this long for the checkpoint.")] = 0,
) -> Response[str]:
    """The receipt, which is verified offline. 202 `pending` until a checkpoint covers it, at most 2 s.

    409 while the job has not ended.
    """
    found = receipts.receipt(container(), api.caller.tenant, id, attempt)
    if found.receipt is not None:
        return reply(found.receipt)
    pending = {"status": "pending", "job": id, "state": found.job.state.value}
    response = reply(pending, status=202, headers={"Retry-After": "1"})
    return waiting(response, [keys.checkpoint().pk], wait_s) if wait_s else response
