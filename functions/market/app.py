"""Routes of planning, and of what the router decided and has learnt."""

from __future__ import annotations

from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query

from hanzo_compute.front.api import Api, reply
from hanzo_compute.front.telemetry import configure
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import explain, plan
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


@api.route("GET", "/v1/jobs/{id}/trace", action=Action.READ, summary="Why a job was placed where it was")
def job_trace(
    id: str,  # noqa: A002
    attempt: Annotated[int | None, Query(ge=1, le=2**31, description="The placement for this attempt.")] = None,
) -> Response[str]:
    """The last placement: what was known of each place, each term of the decision, and what would have changed it."""
    return reply(explain.trace(container(), api.caller.tenant, id, attempt))


@api.route("GET", "/v1/regimes", action=Action.READ, summary="What was learnt of the infrastructure")
def regimes() -> Response[str]:
    """The regimes with their probabilities now, how they were fitted, and what is known of each pool."""
    return reply(explain.regimes(container()))
