"""Routes of planning."""

from __future__ import annotations

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from hanzo_compute.front.api import Api, reply
from hanzo_compute.front.telemetry import configure
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import plan
from hanzo_compute.wiring import container
from market.requests import PlanRequest

logger = configure("market")
api = Api(container)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle one API Gateway HTTP API event."""
    return api(event, context)


@api.route("POST", "/v1/plan/efe", action=Action.READ, summary="What to do next, by expected free energy")
def plan_efe(request: Annotated[PlanRequest, Body()]) -> Response[str]:
    """The next action, the plan that it begins, and the trace: beliefs, candidates with each term, counterfactuals."""
    return reply(plan.by_expected_free_energy(request.problem()))
