"""Routes of attestation: challenge and appraisal for runners, policies for owners, and the key of a job for both."""

from __future__ import annotations

from typing import Annotated, Any, Final

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query

from attestation import requests
from hanzo_compute.front.api import Answer, Answers, Api, listed, reply, shaped
from hanzo_compute.front.telemetry import configure
from hanzo_compute.model import bounds
from hanzo_compute.security import tokens
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import appraisals, policies, release_key
from hanzo_compute.services.lease import Claim
from hanzo_compute.wiring import container

logger = configure("attestation")
api = Api(container)

CHALLENGE: Final[Answers] = {201: Answer("The challenge")}
CREDENTIAL: Final[Answers] = {201: Answer("The credential")}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle one API Gateway HTTP API event."""
    return api(event, context)


def _claim(job: str, attempt: int) -> Claim:
    return Claim(job, attempt, api.caller.tenant)


@api.route("POST", "/v1/attestation/challenges", action=Action.LEASE, summary="Ask for a nonce", answers=CHALLENGE)
def challenge(request: Annotated[requests.ChallengeRequest, Body()]) -> Response[str]:
    """Good once, for two minutes, for the attempt that is held and the two keys that are given."""
    made = appraisals.challenge(container(), _claim(request.job, request.attempt), request.keys())
    return reply(made, status=201)


@api.route(
    "POST",
    "/v1/attestation/activations",
    action=Action.LEASE,
    summary="Ask for a credential for a TPM",
    answers=CREDENTIAL,
)
def activate(request: Annotated[requests.ActivationRequest, Body()]) -> Response[str]:
    """Opened, it shows that attestation key and endorsement key are in one TPM (TPM 2.0 part 1, section 24)."""
    found = appraisals.activation(container(), api.caller.tenant, request.challenge, request.ek(), request.ak())
    return reply(found, status=201)


@api.route("POST", "/v1/attestation/appraisals", action=Action.LEASE, summary="Present evidence")
def present(request: Annotated[requests.AppraisalRequest, Body()]) -> Response[str]:
    """The signed attestation result (a JWT, good for ten minutes), and every check that led to it."""
    evidence = [each.evidence() for each in request.evidence]
    activated = request.secret()
    return reply(appraisals.present(container(), api.caller.tenant, request.challenge, evidence, activated))


@api.route("GET", "/v1/attestation/keys", action=Action.DESCRIBE, summary="What results are signed with")
def result_keys() -> Response[str]:
    """A JSON Web Key Set."""
    return reply(tokens.jwks(container().vault))


@api.route("POST", "/v1/jobs/{id}/key", action=Action.LEASE, summary="Ask for the key of a leased job")
def release(id: str, request: Annotated[requests.KeyReleaseRequest, Body()]) -> Response[str]:  # noqa: A002 the path's
    """Sealed (HPKE) to the key that the evidence commits to; `key_pending` while the requester has not given it."""
    return reply(release_key.release(container(), _claim(id, request.attempt), request.token))


@api.route("PUT", "/v1/jobs/{id}/key", action=Action.SUBMIT, summary="Give the key of a job")
def give(id: str, request: Annotated[requests.KeyRequest, Body()]) -> Response[str]:  # noqa: A002 the path's
    """The key itself, up to tier 1; or sealed to the runner of an attempt, whose evidence you have judged."""
    tenant = api.caller.tenant
    if request.key_base64 is not None:
        return reply(release_key.deposit(container(), tenant, id, request.key()))
    attempt = request.attempt or 0
    return reply(release_key.entrust(container(), tenant, id, attempt, request.to(), request.sealed_to()))


@api.route("GET", "/v1/jobs/{id}/attestations", action=Action.READ, summary="How a job's runners were appraised")
def attestations(id: str) -> Response[str]:  # noqa: A002 the path's
    """Newest first. `bundle` is the blob of all that an appraisal was made of: it can be made again from it."""
    return reply({"items": appraisals.shown(container(), api.caller.tenant, id)})


@api.route(
    "GET",
    "/v1/attestation/policies",
    action=Action.READ,
    summary="List appraisal policies by name",
    answers=listed("PolicyVersion"),
)
def list_policies(
    cursor: Annotated[str, Query(max_length=512)] = "",
    limit: Annotated[int, Query(ge=1, le=bounds.PAGE_MAX)] = bounds.PAGE_DEFAULT,
) -> Response[str]:
    """Your own; the built-in ones are `baseline`, `production` and `local-demo`."""
    return reply(policies.listed(container(), api.caller.tenant, cursor=cursor, limit=limit).as_json())


@api.route(
    "GET",
    "/v1/attestation/policies/{name}",
    action=Action.READ,
    summary="Show an appraisal policy",
    answers=shaped("PolicyVersion"),
)
def show_policy(
    name: str,
    version: Annotated[int | None, Query(ge=1, le=2**31, description="The current one, if not given.")] = None,
) -> Response[str]:
    """With all that it says."""
    return reply(policies.show(container(), api.caller.tenant, name, version))


@api.route(
    "PUT",
    "/v1/attestation/policies/{name}",
    action=Action.POLICY,
    summary="Put a version of a policy",
    answers=shaped("PolicyVersion"),
)
def put_policy(name: str, request: Annotated[requests.PolicyRequest, Body()]) -> Response[str]:
    """From now on it is the current one; by `default` runners are appraised that want a key of your jobs."""
    return reply(policies.put(container(), api.caller.tenant, name, request.policy))
