"""From a validation failure to the problems that a caller reads: which field, what is wrong, what was meant."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from hanzo_compute.errors import FieldProblem, InvalidSpec, NotSupported
from hanzo_compute.model import bounds
from hanzo_compute.model.spec import STORED, JobSpec

PATTERNS = {
    "labels": "names are of a-z 0-9 . _ - and values of A-Z a-z 0-9 . _ -, at most 63 characters each",
    "env": "names are of letters, digits and _, and begin with no digit",
    "source": "a blob id looks like b1-<64 hex digits>, a function like name, name@3 or name@alias",
    "capabilities": "names of secrets are of letters, digits, _ . and -, and begin with a letter",
    "weights": "each weight has a version's number for its name",
    "input": "a blob id looks like b1-<64 hex digits>",
}
"""What the patterns mean in words, by a part of the field's path."""


def _child(model: Any, name: Any) -> Any:
    if isinstance(name, int):  # the models of a list are all the same
        return model
    if isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields:
        return _model_in(model.model_fields[name].annotation)
    return None


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _model_in(part)
        if found is not None:
            return found
    return None


@cache
def _fields(model: type[BaseModel]) -> list[str]:
    """What clients may give: of a stored spec there are fields that its schema does not show."""
    return list(model.model_json_schema()["properties"])


def _hint(model: type[BaseModel], path: Sequence[Any]) -> str | None:
    holder: Any = model
    for step in path[:-1]:
        holder = _child(holder, step)
    if holder is None:
        return None
    names = _fields(holder)
    close = difflib.get_close_matches(str(path[-1]), names, n=1)
    if close:
        return f"did you mean {'.'.join([*map(str, path[:-1]), close[0]])}?"
    return f"known fields: {', '.join(names)}"


def field_problems(errors: Iterable[Mapping[str, Any]], model: type[BaseModel]) -> list[FieldProblem]:
    """Turn pydantic's errors about ``model`` into field problems."""
    found = []
    for error in itertools.islice(errors, bounds.PROBLEMS_MAX):
        path = list(error["loc"])
        context = error.get("ctx") or {}
        if "field" in context:
            path.append(context["field"])
        kind = str(error["type"])
        message, hint = str(error["msg"]), None
        if kind == "extra_forbidden":
            message, hint = "unknown field", _hint(model, path)
        elif kind == "missing":
            message = "required"
        elif kind == "string_pattern_mismatch":
            hint = next((PATTERNS[part] for part in map(str, path) if part in PATTERNS), None)
        found.append(FieldProblem(".".join(map(str, path)) or "(body)", message, kind, hint))
    return found


def parse_spec(value: Any, *, stored: bool = False) -> JobSpec:
    """The spec that ``value`` (decoded JSON) describes; ``stored`` if it is one that the platform has stored.

    Raises:
        NotSupported: it asks for a part of the full spec that this release does not have.
        InvalidSpec: a field is unknown, missing or out of bounds; ``fields`` names each.
    """
    try:
        return JobSpec.model_validate(value, context=STORED if stored else None)
    except ValidationError as error:
        problems = field_problems(error.errors(include_url=False, include_input=False), JobSpec)
    refused = [problem for problem in problems if problem.code == "not_supported"]
    if refused:
        raise NotSupported(
            f"{refused[0].field}: {refused[0].message}",
            fields=refused,
            hint="remove the field, or run a release that supports it",
        )
    first = problems[0]
    raise InvalidSpec(f"{first.field}: {first.message}", fields=problems, hint=first.hint)
