"""The functions behind HTTP, called as the API gateway calls them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import attestation.app
import dispatch.app
import job_intake.app
import leases.app
import market.app
from hanzo_compute.security.authorizer import Role
from hanzo_compute.services import credentials
from hanzo_compute.wiring import Container
from tests.support import described, statements

SPEC = {"source": {"code": "print(1)", "language": "python"}}
A1 = statements.want("a1").key
CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=128, invoked_function_arn="arn:aws:lambda:x", aws_request_id="r"
)
ROUTES = {
    **dict.fromkeys(leases.app.api.routes, leases.app.handler),
    **dict.fromkeys(attestation.app.api.routes, attestation.app.handler),
    **dict.fromkeys(market.app.api.routes, market.app.handler),
    **dict.fromkeys(job_intake.api.api.routes, job_intake.app.handler),
}


class Client:
    """Calls the handlers as the API gateway does, and holds what they answer to the description."""

    def __init__(self, container: Container, tenant: str, role: Role = Role.OWNER) -> None:
        self.key = credentials.create(container, tenant, role, "test")

    def __call__(
        self, method: str, path: str, body: Any = None, *, key: str | None = "", raw: str | None = None, **headers: str
    ) -> SimpleNamespace:
        path, _, query = path.partition("?")
        route_key = _match(method, path)
        names, values = route_key.partition(" ")[2].split("/"), path.split("/")
        found = {name[1:-1]: value for name, value in zip(names, values, strict=False) if name.startswith("{")}
        sent = {"content-type": "application/json"} | {k.replace("_", "-").lower(): v for k, v in headers.items()}
        if key is not None:
            sent["authorization"] = f"Bearer {key or self.key}"
        event = {
            "version": "2.0",
            "routeKey": route_key,
            "rawPath": path,
            "rawQueryString": query,
            "headers": sent,
            "requestContext": {"requestId": "req-1", "stage": "$default", "http": {"method": method, "path": path}},
            "body": raw if raw is not None else json.dumps(body) if body is not None else None,
            "isBase64Encoded": False,
        }
        if found:
            event["pathParameters"] = found
        if query:
            event["queryStringParameters"] = dict(part.split("=", 1) for part in query.split("&"))
        answer = ROUTES.get(route_key, job_intake.app.handler)(event, CONTEXT)
        found = {name.lower(): value for name, value in answer["headers"].items()}
        text = answer["body"]
        status, media = answer["statusCode"], found["content-type"]
        shown = json.loads(text) if "json" in media else text
        if "json" in media and route_key in ROUTES:
            described.holds(method, route_key.partition(" ")[2], status, media, shown)
        return SimpleNamespace(status=status, headers=found, body=shown, text=text)


def _match(method: str, path: str) -> str:
    parts = path.split("/")
    for key in sorted(ROUTES, key=lambda key: key.count("{")):
        verb, pattern = key.split(" ")
        steps = pattern.split("/")
        if verb == method and len(steps) == len(parts):
            pairs = zip(steps, parts, strict=True)
            if all(step == part or step.startswith("{") for step, part in pairs):
                return key
    return "$default"


def place(container: Container) -> None:
    messages = container.queue.receive("dispatch")
    records = [
        {"messageId": m.id, "body": json.dumps(m.body), "eventSource": "aws:sqs", "attributes": {}} for m in messages
    ]
    assert dispatch.app.handler({"Records": records}, CONTEXT) == {"batchItemFailures": []}
    container.queue.ack(messages)


def run(container: Container, agent: Client, outcome: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Place and lease the next job and hand in an outcome."""
    place(container)
    lease = agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1}).body["leases"][0]
    found = hand_in(agent, lease["job"], outcome, attempt=lease["attempt"], **more)
    assert "state" in found, found
    return dict(lease)


def signed(agent: Client, report: dict[str, Any]) -> dict[str, Any]:
    """A report under the agent's signature, if it holds the lease."""
    held = agent("GET", f"/v1/leases/{report['job']}?attempt={report['attempt']}")
    if held.status != 200:
        return report
    return report | {"statement": statements.of_report(held.body, report["outcome"], "a1")}


def hand_in(agent: Client, job: str, outcome: dict[str, Any], *, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """Hand in one outcome; returns its result."""
    body = {"reports": [signed(agent, {"job": job, "attempt": attempt, "outcome": outcome, **more})]}
    (found,) = agent("POST", "/v1/leases/complete", body).body["results"]
    assert found.pop("job") == job
    return dict(found)
