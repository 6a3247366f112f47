"""The route of receipts of invocations."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from hanzo_compute.errors import NotFound
from hanzo_compute.front import problems
from hanzo_compute.front.api import reply, waiting
from hanzo_compute.model import bounds, keys
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import batches
from hanzo_compute.wiring import container
from job_intake.api import api
from job_intake.receipts import RECEIPT


@api.route(
    "GET",
    "/v1/invocations/{id}/receipt",
    action=Action.READ,
    summary="What an invocation was and cost",
    answers=RECEIPT,
)
def invocation_receipt(
    id: str,  # noqa: A002
    wait_s: Annotated[float, Query(ge=0, le=bounds.WAIT_S_MAX, description="Wait this long for the checkpoint.")] = 0,
) -> Response[str]:
    """The receipt, which is verified offline. 202 `pending` until a checkpoint covers it.

    404 until its batch is written, about a second after the answer.
    """
    wake = [keys.checkpoint().pk]
    try:
        found = batches.receipt(container(), api.caller.tenant, id)
    except NotFound as error:
        if not wait_s or not batches.expected(container(), id):
            raise
        return waiting(problems.response(error, api.request_id), wake, wait_s)
    if found.receipt is not None:
        return reply(found.receipt)
    response = reply({"status": "pending", "invocation": id}, status=202, headers={"Retry-After": "1"})
    return waiting(response, wake, wait_s) if wait_s else response
