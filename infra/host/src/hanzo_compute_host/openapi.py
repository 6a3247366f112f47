"""Describes the routes of all functions as one OpenAPI document, openapi.json, which ``job_intake`` serves.

It is written when the sources change, not when somebody asks for it: functions are deployed apart, none imports
another, and what only describes should not make a start slower. A description comes from what a call goes through:
routes and the names of operations from host.json, credentials from the action of a route, parameters and bodies from
the handler's signature. What they do not say is in the route's ``answers`` (their shapes: openapi_shapes.py) and the
handler's docstring.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from hanzo_compute import __version__
from hanzo_compute.front.api import ANY, METHODS, Answer, Api
from hanzo_compute.front.api import Route as Registered
from hanzo_compute.front.guest_http import BYTES
from hanzo_compute.security.authorizer import GRANTS, Action
from hanzo_compute_host import openapi_parts as parts
from hanzo_compute_host.generated import settle
from hanzo_compute_host.manifest import Manifest, Route, load
from hanzo_compute_host.openapi_shapes import SHAPES

OPENAPI_JSON: Final = "openapi.json"

_BODIES: Final = {"POST", "PUT", "PATCH"}
"""Methods whose requests have bodies that mean something (RFC 9110)."""


class DescriptionError(Exception):
    """Template and functions, or two functions, contradict each other."""


def document(manifest: Manifest | None = None) -> dict[str, Any]:
    """The description of every route of the manifest; by default of the platform's own.

    Raises:
        DescriptionError: a route is in the template alone or in a function alone, or there is no area for it.
    """
    routes = _registered(manifest or load())
    found = _described(routes)
    schemas = found["components"]["schemas"]
    for name in SHAPES.keys() & schemas.keys():
        raise DescriptionError(f"both an answer and a body are called {name}")
    schemas |= SHAPES
    responses = {"Problem": parts.PROBLEM_RESPONSE}
    paths: dict[str, dict[str, Any]] = {}
    areas: set[str] = set()
    for route, registered in routes:
        path = route.path.replace("+}", "}")
        area = _area(registered)
        areas.add(area)
        for method in METHODS if route.method == ANY else (route.method,):
            known = found["paths"][path][method.lower()]
            name = route.name + method.title() if route.method == ANY else route.name
            operation = {"tags": [area], "operationId": name} | _operation(method, registered, known)
            paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": found["openapi"],
        "info": {"title": "Hanzo Compute", "version": __version__, "description": parts.INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": area.text} for name, area in parts.AREAS.items() if name in areas],
        "paths": paths,
        "components": {
            "securitySchemes": parts.CREDENTIALS,
            "responses": responses,
            "schemas": _used([paths, responses], schemas),
        },
    }


def render(found: Mapping[str, Any]) -> str:
    """openapi.json as it is committed."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _registered(manifest: Manifest) -> list[tuple[Route, Registered]]:
    """The routes in the template's order, each with what its function says of it."""
    apis: dict[str, Api] = {}
    for route in manifest.routes:
        if route.function not in apis:
            module = manifest.functions[route.function].handler.rpartition(".")[0]
            apis[route.function] = importlib.import_module(module).api
    wanted = {f"{route.method} {route.path}": route for route in manifest.routes}
    for name, api in apis.items():
        for key in api.routes:
            if key not in wanted or wanted[key].function != name:
                raise DescriptionError(f"{name} has {key}, which the template does not give it")
    for key, route in wanted.items():
        if key not in apis[route.function].routes:
            raise DescriptionError(f"the template gives {key} to {route.function}, which has no such route")
    names = [route.name for route in manifest.routes]
    for name in names:
        if names.count(name) > 1:
            raise DescriptionError(f"two routes are called {name}: operations need names of their own")
    return [(route, apis[route.function].routes[key]) for key, route in wanted.items()]


def _described(routes: Iterable[tuple[Route, Registered]]) -> dict[str, Any]:
    """What Powertools makes of the signatures."""
    resolver = APIGatewayHttpResolver(enable_validation=True)
    for route, registered in routes:
        rule = re.sub(r"\{(\w+)\+?\}", r"<\1>", route.path)
        for method in METHODS if route.method == ANY else (route.method,):
            resolver.route(rule, method, operation_id=f"{method} {route.path}")(registered.call)
    found: dict[str, Any] = json.loads(resolver.get_openapi_json_schema(title="", version=""))
    for name, schema in found["components"]["schemas"].items():
        if "__" in name:
            raise DescriptionError(f"two models are called {name.rpartition('__')[2]}: bodies need names of their own")
        found["components"]["schemas"][name] = _tidy(schema)
    return found


def _area(registered: Registered) -> str:
    module = registered.call.__module__
    for name, area in parts.AREAS.items():
        if module in area.modules:
            return name
    raise DescriptionError(f"the routes of {module} have no area: give them one in openapi_parts.py")


def _operation(method: str, registered: Registered, known: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "summary": registered.summary,
        "description": inspect.getdoc(registered.call) or "",
        "security": _security(registered),
    }
    parameters = [_parameter(each) for each in known.get("parameters", [])]
    if registered.raw and registered.action is None:
        parameters.append(parts.ANY_QUERY)
    if parameters:
        made["parameters"] = parameters
    if "requestBody" in known:
        made["requestBody"] = known["requestBody"]
    elif registered.raw and method in _BODIES:
        made["requestBody"] = {"description": "Any bytes.", "content": {BYTES: {}}}
    made["responses"] = {str(status): _response(answer, method) for status, answer in registered.answers.items()}
    made["responses"].setdefault("default", {"$ref": "#/components/responses/Problem"})
    return made


def _security(registered: Registered) -> list[dict[str, list[str]]]:
    """The credentials that will do, each by itself; an empty one: none is needed."""
    action = registered.action or registered.asks
    found: list[dict[str, list[str]]] = [] if registered.action else [{}]
    return found + [{role.value: []} for role, granted in GRANTS.items() if _grants(granted, action)]


def _grants(granted: frozenset[Action], action: Action | None) -> bool:
    return action is not None and action in granted


def _parameter(known: Mapping[str, Any]) -> dict[str, Any]:
    """With a schema of its own for what is sent: None is what is not sent, not a value."""
    name, title = known["name"], known["schema"].get("title", "")
    if known["in"] == "header" and title.lower() == name:
        name = title  # as it is usually written
    schema = _tidy(known["schema"])
    text = schema.pop("description", None)
    if "anyOf" in schema:
        kinds = [kind for kind in schema.pop("anyOf") if kind != {"type": "null"}]
        schema = {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **schema}
    made = {"name": name, "in": known["in"], "required": known["required"], "schema": schema}
    return made | ({"description": known.get("description", text)} if text or "description" in known else {})


def _response(answer: Answer, method: str) -> dict[str, Any]:
    made: dict[str, Any] = {"description": answer.text}
    if answer.headers:
        made["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    if method != "HEAD":
        made["content"] = {media: {"schema": schema} if schema else {} for media, schema in answer.schemas.items()}
    return made


def _tidy(schema: Any) -> Any:
    """Without the titles that only repeat a name, and with whole numbers as such."""
    if isinstance(schema, dict):
        return {
            name: _tidy(value) for name, value in schema.items() if not (name == "title" and isinstance(value, str))
        }
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    return int(schema) if isinstance(schema, float) and schema.is_integer() else schema


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _used(users: Any, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The schemas that operations and their answers refer to, by name, and those that these refer to."""
    found: set[str] = set()
    new = set(_references(users)) & schemas.keys()
    while new:
        found |= new
        new = {each for name in new for each in _references(schemas[name])} - found
    return {name: schemas[name] for name in sorted(found)}


def main(argv: list[str] | None = None) -> int:
    """Write openapi.json, or with ``--check`` fail when the committed one is not what the functions say."""
    parser = argparse.ArgumentParser(prog="python -m hanzo_compute_host.openapi", description=main.__doc__)
    parser.add_argument("--output", type=Path, help="default: openapi.json of the installed function")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    output = options.output or Path(str(resources.files("job_intake"))) / OPENAPI_JSON
    try:
        wanted = render(document())
    except DescriptionError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return settle(output, wanted, "the functions say", check=options.check)


if __name__ == "__main__":
    sys.exit(main())
