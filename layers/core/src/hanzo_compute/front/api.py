"""An HTTP function: routes with the action that each needs, on Powertools' validating resolver.

The caller is authenticated and authorised from the matched route (``routeKey``) before anything of the request is
parsed; a route without an action does not exist, and an event whose route is unknown is refused.
"""

from __future__ import annotations

import base64
import inspect
import logging
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Param
from pydantic import BaseModel
from pydantic_core import to_json

from hanzo_compute.errors import ComputeError, FieldProblem, InternalError, InvalidRequest, NotFound
from hanzo_compute.front import problems
from hanzo_compute.security.authorizer import Action, Principal, authorize
from hanzo_compute.services import credentials
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

Event = dict[str, Any]
Handler = Callable[..., Response[str]]


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
class _Route:
    action: Action | None
    query: tuple[str, ...]
    body: type[BaseModel] | None


class Api:
    """Routes of one function. ``context`` gives the ports; it is called for each request."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self.resolver = APIGatewayHttpResolver(enable_validation=True, json_body_deserializer=problems.loads)
        self._routes: dict[str, _Route] = {}
        self._principal: Principal | None = None
        self.resolver.exception_handler(RequestValidationError)(self._invalid)
        self.resolver.exception_handler(ComputeError)(self._refused)
        # The route is known by then; what the resolver does not match are characters that no id has.
        self.resolver.not_found(lambda _: self._refused(self._unknown(self.event)))

    @property
    def caller(self) -> Principal:
        """Who sent the request that is being handled."""
        if self._principal is None:
            raise InternalError("a public route asked for its caller")
        return self._principal

    @property
    def routes(self) -> list[str]:
        """Route keys, such as ``GET /v1/jobs/{id}``."""
        return list(self._routes)

    def needs_credential(self, route_key: str) -> bool:
        """Whether a route is not public."""
        return self._routes[route_key].action is not None

    @property
    def event(self) -> Event:
        """The event that is being handled."""
        raw: Event = self.resolver.current_event.raw_event
        return raw

    def route(self, method: str, path: str, *, action: Action | None, **options: Any) -> Callable[[Handler], Handler]:
        """Register a handler. ``action`` None makes the route public; options go to Powertools (OpenAPI)."""

        def register(function: Handler) -> Handler:
            hints = typing.get_type_hints(function, include_extras=True)
            query = []
            body = None
            for name in inspect.signature(function).parameters:
                hint = hints[name]
                bases = [a for a in typing.get_args(hint) if isinstance(a, Param)]
                plain = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
                if isinstance(plain, type) and issubclass(plain, BaseModel):
                    body = plain
                elif bases and bases[0].in_.value == "query":
                    query.append(bases[0].alias or name)
            self._routes[f"{method} {path}"] = _Route(action, tuple(query), body)
            rule = re.sub(r"\{(\w+)\}", r"<\1>", path)
            return self.resolver.route(rule, method, **options)(function)

        return register

    def __call__(self, event: Event, context: Any) -> dict[str, Any]:
        """Handle one API Gateway HTTP API event (payload format 2.0)."""
        request_id = str(event.get("requestContext", {}).get("requestId", ""))
        try:
            self._admit(event)
            answer: dict[str, Any] = self.resolver.resolve(event, context)
            return answer
        except ComputeError as error:
            return self._plain(error, request_id)
        except Exception:
            log.exception("unhandled error", extra={"request_id": request_id})
            defect = InternalError("the platform failed on this request", hint="report it with its request_id")
            return self._plain(defect, request_id)
        finally:
            self._principal = None

    def _admit(self, event: Event) -> None:
        """Authenticate, authorise, and refuse what the matched route does not take."""
        route = self._routes.get(event.get("routeKey", ""))
        if route is None:
            raise self._unknown(event)
        headers = event.get("headers") or {}
        self._principal = None
        if route.action is not None:
            principal = credentials.authenticate(self._context(), headers.get("authorization"))
            self._principal = authorize(principal, route.action)
        unknown = [name for name in event.get("queryStringParameters") or {} if name not in route.query]
        if unknown:
            raise problems.unknown_parameters(unknown, route.query)
        if route.body is not None:
            media = headers.get("content-type", "application/json")
            if media != "application/json":
                problems.check_media(media)
                headers["content-type"] = "application/json"  # the resolver knows it in this form only
            if event.get("isBase64Encoded") and not _is_text(event.get("body") or ""):
                raise InvalidRequest("the body is not UTF-8", fields=[FieldProblem("(body)", "is not UTF-8")])
        elif event.get("body"):
            problem = FieldProblem("(body)", "this call takes no body", "unexpected", "send it without one")
            raise InvalidRequest(problem.message, fields=[problem], hint=problem.hint)

    def _unknown(self, event: Event) -> NotFound:
        return NotFound(f"there is no {event.get('rawPath', '')}", hint="GET /openapi.json lists the routes")

    def _plain(self, error: ComputeError, request_id: str) -> dict[str, Any]:
        made = problems.response(error, request_id)
        headers = {**made.headers, "Content-Type": problems.MEDIA_TYPE}
        return {"statusCode": made.status_code, "headers": headers, "body": made.body, "isBase64Encoded": False}

    def _request_id(self) -> str:
        return str(self.event.get("requestContext", {}).get("requestId", ""))

    def _refused(self, error: ComputeError) -> Response[str]:
        return problems.response(error, self._request_id())

    def _invalid(self, error: RequestValidationError) -> Response[str]:
        route = self._routes[self.event["routeKey"]]
        return self._refused(problems.from_validation(list(error.errors()), route.body))


def _is_text(encoded: str) -> bool:
    try:
        base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return False
    return True
