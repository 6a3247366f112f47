"""The route of quotes: what a job can cost."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from hanzo_compute.front.api import reply, shaped
from hanzo_compute.model.spec import JobSpec
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import pricing, submit
from hanzo_compute.services.expand import expand
from hanzo_compute.wiring import container
from job_intake.api import api


@api.route(
    "POST", "/v1/quotes", action=Action.READ, summary="What a job can cost, before it runs", answers=shaped("Quote")
)
def quote(spec: Annotated[JobSpec, Body()]) -> Response[str]:
    """The most that a job of this spec can cost, all its attempts together, and how that is made up.

    `firm`: a deterministic program costs the same on every machine. A job that is submitted under this tariff is
    billed by it, whatever the tariff is later.
    """
    spec = expand(container(), api.caller.tenant, spec)
    runtimes = submit.check(container(), api.caller.tenant, spec)
    return reply(pricing.quote_most(container(), spec, runtimes).as_json())
