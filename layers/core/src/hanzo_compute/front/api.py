"""An HTTP function: routes with the action that each needs.

The caller is authenticated and authorised from the matched route (``routeKey``) before anything of the request is
parsed; a route without an action does not exist, and an event whose route is unknown is refused.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aws_lambda_powertools.event_handler import Response
from pydantic_core import to_json

from hanzo_compute.errors import ComputeError, FieldProblem, InternalError, InvalidRequest, NotFound
from hanzo_compute.front import problems
from hanzo_compute.front.binding import Binding, Event
from hanzo_compute.security.authorizer import Action, Principal, authorize
from hanzo_compute.services import credentials
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

Handler = Callable[..., Response[Any]]

ANY = "ANY"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""What ``ANY`` stands for."""


def reply(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[str]:
    """A JSON response."""
    return Response(
        status_code=status,
        content_type="application/json",
        body=to_json(body).decode(),
        headers=dict(headers or {}),
    )


def waiting(response: Response[str], wake: Sequence[str], wait_s: float) -> Response[str]:
    """The response, marked as having nothing to say yet: the host asks again when a partition wakes."""
    response.headers["hzc-wake"] = ",".join(wake)
    response.headers["hzc-wait"] = str(wait_s)
    return response


@dataclass(frozen=True)
class Answer:
    """A response of a route, for its description; what is not said here is a problem document."""

    text: str
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"application/json": {"type": "object"}})
    """By media type."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What each says."""


def shape(name: str, media: str = "application/json") -> Mapping[str, Mapping[str, Any]]:
    """The schemas of an answer that is described under a name: see hanzo_compute_host/openapi_shapes.py."""
    return {media: {"$ref": f"#/components/schemas/{name}"}}


Answers = Mapping[int | str, Answer]
"""By status, a class of them such as ``2XX``, or ``default``: a problem, if nothing else is said."""
DONE: Final[Answers] = {200: Answer("Done")}


def shaped(name: str) -> Answers:
    """One answer, of that shape."""
    return {200: Answer("Done", shape(name))}


def listed(name: str) -> Answers:
    """A page of items of that shape."""
    page = {
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
            "next_cursor": {"type": ["string", "null"]},
        },
    }
    return {200: Answer("A page", {"application/json": page})}


@dataclass(frozen=True)
class Route:
    """A handler, the action that it needs, and what its description says that its signature does not."""

    call: Handler
    binding: Binding
    action: Action | None
    summary: str
    answers: Answers
    raw: bool
    """Query and body are the handler's own affair."""
    asks: Action | None
    """What a public route asks of some callers by itself."""


class Api:
    """Routes of one function. ``context`` gives the ports; it is called for each request. One request at a time."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._routes: dict[str, Route] = {}
        self._principal: Principal | None = None
        self._event: Event = {}

    @property
    def caller(self) -> Principal:
        """Who sent the request that is being handled."""
        if self._principal is None:
            raise InternalError("a public route asked for its caller")
        return self._principal

    @property
    def routes(self) -> Mapping[str, Route]:
        """By route key, such as ``GET /v1/jobs/{id}``."""
        return self._routes

    @property
    def event(self) -> Event:
        """The event that is being handled."""
        return self._event

    @property
    def request_id(self) -> str:
        """The id of the request that is being handled."""
        return _request_id(self._event)

    def route(
        self,
        method: str,
        path: str,
        *,
        action: Action | None,
        summary: str,
        answers: Answers = DONE,
        raw: bool = False,
        asks: Action | None = None,
    ) -> Callable[[Handler], Handler]:
        """Register a handler. ``action`` None makes the route public; with ``raw`` it looks at body and query itself.

        The rest describes the route, as do the handler's signature and docstring; no request pays for it.
        """

        def register(function: Handler) -> Handler:
            made = Route(function, Binding.of(function), action, summary, answers, raw, asks)
            self._routes[f"{method} {path}"] = made
            return function

        return register

    def __call__(self, event: Event, context: Any) -> dict[str, Any]:
        """Handle one API Gateway HTTP API event (payload format 2.0)."""
        self._event = event
        try:
            route = self._admit(event)
            response = route.call(**route.binding.arguments(event))
        except ComputeError as error:
            response = problems.response(error, _request_id(event))
        except Exception:
            log.exception("unhandled error", extra={"request_id": _request_id(event)})
            defect = InternalError("the platform failed on this request", hint="report it with its request_id")
            response = problems.response(defect, _request_id(event))
        finally:
            self._principal, self._event = None, {}
        return rendered(response)

    def _admit(self, event: Event) -> Route:
        """The matched route, if the caller may use it and sent only what it takes."""
        route = self._routes.get(event.get("routeKey", ""))
        if route is None:
            raise NotFound(f"there is no {event.get('rawPath', '')}", hint="GET /openapi.json lists the routes")
        headers = event.get("headers") or {}
        if route.action is not None:
            principal = credentials.authenticate(self._context(), headers.get("authorization"))
            self._principal = authorize(principal, route.action)
        if route.raw:
            return route
        known = route.binding.query
        unknown = [name for name in event.get("queryStringParameters") or {} if name not in known]
        if unknown:
            raise problems.unknown_parameters(unknown, known)
        if route.binding.body is not None:
            problems.check_media(headers.get("content-type", "application/json"))
        elif event.get("body"):
            problem = FieldProblem("(body)", "this call takes no body", "unexpected", "send it without one")
            raise InvalidRequest(problem.message, fields=[problem], hint=problem.hint)
        return route


def rendered(response: Response[Any]) -> dict[str, Any]:
    """A response as API Gateway takes it (payload format 2.0)."""
    body = response.body
    raw = isinstance(body, bytes)
    return {
        "statusCode": response.status_code,
        "headers": {**response.headers, "Content-Type": response.content_type},
        "body": base64.b64encode(body).decode() if isinstance(body, bytes) else body,
        "isBase64Encoded": raw,
    }


def _request_id(event: Event) -> str:
    return str(event.get("requestContext", {}).get("requestId", ""))
