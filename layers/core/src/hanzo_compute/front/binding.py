"""From an event to the arguments of a handler: compiled once from its signature, then a few validators per call.

Powertools' resolver reads the same signatures for the OpenAPI description; its own way through an event takes more
CPU than the service behind a read, and keeps the event in a class attribute.
"""

from __future__ import annotations

import base64
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aws_lambda_powertools.event_handler.openapi.params import Header, Query
from pydantic import BaseModel, TypeAdapter, ValidationError

from hanzo_compute.errors import FieldProblem, InvalidRequest
from hanzo_compute.front import problems

Event = dict[str, Any]

_SOURCES: Final = {Query: "queryStringParameters", Header: "headers"}


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A query parameter or header: the event's field that holds it, its name there, and what checks it."""

    argument: str
    source: str
    name: str
    shown: str
    required: bool
    adapter: TypeAdapter[Any]


@dataclass
class Binding:
    """The arguments of one handler."""

    paths: list[str] = field(default_factory=list)
    parameters: list[_Parameter] = field(default_factory=list)
    body: tuple[str, type[BaseModel]] | None = None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Binding:
        """Compile the signature: a model is the body, ``Query`` and ``Header`` say so, all else is in the path."""
        made = cls()
        hints = typing.get_type_hints(function, include_extras=True)
        for argument, parameter in inspect.signature(function).parameters.items():
            hint = hints[argument]
            plain = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
            info = next((each for each in typing.get_args(hint) if isinstance(each, Query | Header)), None)
            if isinstance(plain, type) and issubclass(plain, BaseModel):
                made.body = (argument, plain)
            elif info is None:
                made.paths.append(argument)
            else:
                shown = info.alias or argument
                name = shown.lower() if isinstance(info, Header) else shown
                source, required = _SOURCES[type(info)], parameter.default is inspect.Parameter.empty
                made.parameters.append(_Parameter(argument, source, name, shown, required, TypeAdapter(hint)))
        return made

    @property
    def query(self) -> list[str]:
        """The query parameters that there are."""
        return [each.name for each in self.parameters if each.source == _SOURCES[Query]]

    def arguments(self, event: Event) -> dict[str, Any]:
        """What to call the handler with; parameters that were not sent are left to their defaults.

        Raises:
            InvalidRequest (InvalidSpec, NotSupported): something is not as the signature says.
        """
        found: dict[str, Any] = {}
        if self.paths:
            given: Mapping[str, str] = event["pathParameters"]
            found = {name: given[name] for name in self.paths}
        wrong: list[FieldProblem] = []
        for each in self.parameters:
            sent = event.get(each.source)
            if not sent or each.name not in sent:
                if each.required:
                    wrong.append(FieldProblem(each.shown, "must be given", "missing"))
                continue
            try:
                found[each.argument] = each.adapter.validate_python(sent[each.name])
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                wrong.append(FieldProblem(each.shown, first["msg"], first["type"]))
        if wrong:
            raise InvalidRequest(f"{wrong[0].field}: {wrong[0].message}", fields=wrong)
        if self.body is not None:
            argument, model = self.body
            found[argument] = _body(event, model)
        return found


def _body(event: Event, model: type[BaseModel]) -> BaseModel:
    text = event.get("body") or ""
    if event.get("isBase64Encoded"):
        try:
            text = base64.b64decode(text, validate=True).decode()
        except ValueError:
            raise InvalidRequest("the body is not UTF-8", fields=[FieldProblem("(body)", "is not UTF-8")]) from None
    try:
        return model.model_validate(problems.loads(text))
    except json.JSONDecodeError as error:
        problem = FieldProblem("(body)", f"is not valid JSON: {error.msg}", "json_invalid")
        raise InvalidRequest(f"the body {problem.message}", fields=[problem]) from None
    except ValidationError as error:
        raise problems.from_validation(error, model) from None
