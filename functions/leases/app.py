"""Routes of leases: lease, heartbeat, logs, outputs, complete, release."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query

from hanzo_compute.errors import ComputeError, Unavailable
from hanzo_compute.front import problems
from hanzo_compute.front.api import Api, reply, shaped, waiting
from hanzo_compute.front.telemetry import configure
from hanzo_compute.front.uploads import upload_view
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.ports import Beat, Want
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import complete as completing
from hanzo_compute.services import grants
from hanzo_compute.services import lease as leasing
from hanzo_compute.services.complete import Ended
from hanzo_compute.services.lease import Claim
from hanzo_compute.wiring import container
from leases import requests

logger = configure("leases")
api = Api(container)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle one API Gateway HTTP API event."""
    return api(event, context)


def _claim(job: str, attempt: int) -> Claim:
    return Claim(job, attempt, api.caller.tenant)


def _acquire(want: requests.Want) -> list[dict[str, Any]]:
    wanted = Want(want.pool, want.agent, want.key, want.limit)
    found = leasing.acquire(container(), wanted, api.caller.tenant)
    return [asdict(each) for each in found]


@api.route("POST", "/v1/leases", action=Action.LEASE, summary="Lease attempts of placed jobs")
def lease(request: Annotated[requests.LeaseRequest, Body()]) -> Response[str]:
    """Waits up to `wait_s` for the first."""
    found = _acquire(request)
    response = reply({"leases": found})
    if found or not request.wait_s:
        return response
    return waiting(response, [keys.pool_partition(request.pool)], request.wait_s)


@api.route("GET", "/v1/leases/{job}", action=Action.LEASE, summary="Look at a lease that is held")
def again(job: str, attempt: Annotated[int, Query(ge=1, le=2**31)]) -> Response[str]:
    """For an agent that was started anew and has work of its earlier process to hand in."""
    return reply(asdict(leasing.again(container(), _claim(job, attempt))))


@api.route("POST", "/v1/leases/{job}/heartbeat", action=Action.LEASE, summary="Renew a lease")
def heartbeat(job: str, request: Annotated[requests.HeartbeatRequest, Body()]) -> Response[str]:
    """Answers at once when there is something that the agent has not seen, else after `wait_s`."""
    beat = leasing.heartbeat(container(), _claim(job, request.attempt))
    response = reply(asdict(beat))
    if request.wait_s and beat == Beat(request.seen.cancel, request.seen.follow):
        return waiting(response, [keys.job_partition(job)], request.wait_s)
    return response


@api.route("POST", "/v1/leases/{job}/logs", action=Action.LEASE, summary="Append a log chunk")
def append_logs(job: str, request: Annotated[requests.LogRequest, Body()]) -> Response[str]:
    """The same chunk twice is the same as once."""
    claim = _claim(job, request.attempt)
    leasing.append_logs(container(), claim, request.seq, requests.entries(request.entries))
    return reply({})


@api.route(
    "POST",
    "/v1/leases/{job}/blobs",
    action=Action.LEASE,
    summary="Ask where to upload an output",
    answers=shaped("Upload"),
)
def create_blob(job: str, request: Annotated[requests.BlobRequest, Body()]) -> Response[str]:
    """The blob's id, and unless it exists already a URL that takes exactly these bytes by PUT."""
    url = leasing.presign_output(container(), _claim(job, request.attempt), request.blob, request.size)
    return reply(upload_view(request, url))


@api.route("POST", "/v1/leases/{job}/entries", action=Action.LEASE, summary="Read a key-value entry of the function")
def read_entry(job: str, request: Annotated[requests.EntryRequest, Body()]) -> Response[str]:
    """For a job of a function with `kv`: what it writes goes with its outcome, compared with `rev`."""
    key = base64.b64decode(request.key_base64)
    seen = grants.entry(container(), _claim(job, request.attempt), key, fresh=request.fresh)
    return reply({"rev": seen.rev, "version": seen.version, "value_base64": _text(seen.value)})


@api.route("POST", "/v1/leases/{job}/secrets", action=Action.LEASE, summary="Read a secret that the function may read")
def read_secret(job: str, request: Annotated[requests.SecretRequest, Body()]) -> Response[str]:
    """That it was read is on record before it is given; once for each attempt and secret. None of a name: null."""
    found = grants.secret(container(), _claim(job, request.attempt), request.name)
    return reply({"value_base64": _text(found)}, headers={"Cache-Control": "no-store"})


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


@api.route("POST", "/v1/leases/complete", action=Action.LEASE, summary="Hand in outcomes")
def complete(request: Annotated[requests.CompleteRequest, Body()]) -> Response[str]:
    """Each report has a result of its own: the job's state, or a problem such as `stale_fence`.

    Handing in an accepted outcome again is answered alike. With `want`, attempts are leased in the same call; it does
    not wait for them.
    """
    found = completing.complete_all(container(), [_ended(report) for report in request.reports])
    results = [_result(report.job, each) for report, each in zip(request.reports, found, strict=True)]
    answer: dict[str, Any] = {"results": results}
    if request.want is not None:
        try:
            answer["leases"] = _acquire(request.want)
        except Unavailable as error:  # the outcome stands, and the agent asks again
            logger.warning("nothing leased with an outcome: %s", error.message)
    return reply(answer)


def _ended(report: requests.Report) -> Ended:
    seq, entries = (report.log.seq, requests.entries(report.log.entries)) if report.log else (0, [])
    signed = report.statement.signed() if report.statement else None
    return Ended(_claim(report.job, report.attempt), report.outcome, seq, entries, signed, report.touched())


def _result(job: str, found: Job | ComputeError) -> dict[str, Any]:
    if isinstance(found, ComputeError):
        return {"job": job, "problem": problems.document(found, api.request_id)}
    return {"job": job, "state": found.state.value}


@api.route("POST", "/v1/leases/{job}/release", action=Action.LEASE, summary="Give an attempt back")
def release(job: str, request: Annotated[requests.ReleaseRequest, Body()]) -> Response[str]:
    """The job goes to its next attempt; this one uses up no retry."""
    leasing.release(container(), _claim(job, request.attempt), request.reason)
    return reply({})
