"""The description of the API is what the template routes, the functions take and the authorizer grants."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import schemathesis
from aws_lambda_powertools.event_handler.openapi.params import Body
from jsonschema import Draft202012Validator
from pydantic import BaseModel

import job_intake
from hanzo_compute import wiring
from hanzo_compute.front.api import METHODS, Api
from hanzo_compute.front.problems import MEDIA_TYPE
from hanzo_compute.security.authorizer import Action, Role
from hanzo_compute.services import credentials
from hanzo_compute.wiring import Container
from hanzo_compute_host import openapi
from hanzo_compute_host.manifest import Manifest, Route, load
from hanzo_compute_host.openapi import DescriptionError
from hanzo_compute_host.template import compile_text
from tests.support.described import DOCUMENT, validator
from tests.support.handlers import CONTEXT, Client

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = Path(job_intake.__file__).with_name("openapi.json").read_text("utf-8")
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
BODIES = {
    key: operation
    for key, operation in OPERATIONS.items()
    if "application/json" in operation.get("requestBody", {}).get("content", {})
}

JOB = {"source": {"code": "print(1)", "language": "python"}}
JOB_ID = "j-01ARZ3NDEKTSV4RRFFQ69G5FAV"
CHALLENGE = "ac-01ARZ3NDEKTSV4RRFFQ69G5FAV"
WANT = {"pool": "local", "agent": "a1", "key": "ab" * 32}
LOG = [{"at_ms": 1, "stream": "stdout", "text": "hello\n"}]
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "POST /v1/jobs": [JOB, JOB | {"labels": {"a": "b"}, "retry": {"max_attempts": 2}, "privacy_tier": None}],
    "POST /v1/validate": [JOB],
    "POST /v1/quotes": [JOB | {"resources": {"memory_mib": 64}}],
    "POST /v1/blobs": [{"sha256": "0" * 64, "size": 3}],
    "PUT /v1/functions/{name}": [JOB, JOB | {"public": True}],
    "PUT /v1/functions/{name}/aliases/{alias}": [{"version": 3}, {"weights": {"3": 90, "4": 10}}],
    "POST /v1/functions/{name}/rollback": [{}, {"alias": "live"}],
    "PUT /v1/functions/{name}/kv/{key}": [{"value": "v"}, {"value_base64": "dg==", "expect": 0}],
    "PUT /v1/secrets/{name}": [{"value": "s"}, {"value_base64": "cw=="}],
    "PUT /v1/schedules/{name}": [{"cron": "*/5 * * * *", "jobs": [JOB]}],
    "POST /v1/leases": [WANT, WANT | {"limit": 2, "wait_s": 1.5}],
    "POST /v1/leases/{job}/heartbeat": [{"attempt": 1}, {"attempt": 1, "seen": {"cancel": None, "follow": True}}],
    "POST /v1/leases/{job}/logs": [{"attempt": 1, "seq": 1, "entries": LOG}],
    "POST /v1/leases/{job}/blobs": [{"attempt": 1, "sha256": "0" * 64, "size": 3}],
    "POST /v1/leases/{job}/entries": [{"attempt": 1, "key_base64": "aw==", "fresh": True}],
    "POST /v1/leases/{job}/secrets": [{"attempt": 1, "name": "token"}],
    "POST /v1/leases/{job}/release": [{"attempt": 1, "reason": "going away"}],
    "POST /v1/leases/complete": [
        {"reports": [{"job": JOB_ID, "attempt": 1, "outcome": {"category": "ok", "exit_code": 0}}], "want": WANT}
    ],
    "POST /v1/attestation/challenges": [
        {"job": JOB_ID, "attempt": 1, "signing_key": "AA==", "sealing_key": "AA=="},
    ],
    "POST /v1/attestation/activations": [{"challenge": CHALLENGE, "ek_tpm2b": "AA==", "ak_tpm2b": "AA=="}],
    "POST /v1/attestation/appraisals": [
        {"challenge": CHALLENGE, "evidence": [{"platform": "tpm", "files": {"quote": "AA=="}}]},
    ],
    "PUT /v1/attestation/policies/{name}": [{"policy": "version: 1\n"}],
    "POST /v1/jobs/{id}/key": [{"attempt": 1, "token": "a.b.c"}],
    "PUT /v1/jobs/{id}/key": [
        {"key_base64": "AA=="},
        {"attempt": 1, "recipient": "ab" * 32, "sealed": "AA=="},
    ],
    "POST /v1/plan/efe": [
        {
            "beliefs": {"node": {"healthy": 0.6, "stressed": 0.4}},
            "options": {"node": {"keep": [[0.9, 0.1], [0.1, 0.9]]}},
            "outcomes": {"latency": {"met": [0.95, 0.3], "missed": [0.05, 0.7]}},
        }
    ],
}


def parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from parts(value)
    elif isinstance(node, list):
        for value in node:
            yield from parts(value)


def apis() -> dict[str, Api]:
    """Of each function that has routes."""
    manifest = load()
    names = {route.function: manifest.functions[route.function].handler for route in manifest.routes}
    return {name: importlib.import_module(handler.rpartition(".")[0]).api for name, handler in names.items()}


def route_keys(operation_key: str) -> set[str]:
    """What the template may call an operation."""
    method, _, path = operation_key.partition(" ")
    paths = {path, re.sub(r"\{(\w+)\}$", r"{\1+}", path)}
    return {f"{each} {path}" for each in (method, "ANY") for path in paths}


def body_model(key: str) -> type[BaseModel]:
    (route,) = (api.routes[name] for api in apis().values() for name in route_keys(key) & set(api.routes))
    assert route.binding.body is not None
    return route.binding.body[1]


def test_the_committed_description_is_what_the_functions_say() -> None:
    assert openapi.render(openapi.document()) == COMMITTED


def test_every_route_of_the_template_is_described_and_nothing_else() -> None:
    wanted = set()
    for route in compile_text((ROOT / "template.yaml").read_text())["routes"]:
        for method in METHODS if route["method"] == "ANY" else [route["method"]]:
            wanted.add(f"{method} {route['path'].replace('+}', '}')}")
    assert wanted == set(OPERATIONS)


def test_it_is_served_byte_for_byte(call: Client) -> None:
    answer = call("GET", "/openapi.json")
    assert (answer.status, answer.text) == (200, COMMITTED)
    assert answer.headers["content-type"] == "application/json"


def test_a_validator_of_openapi_takes_it() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_every_schema_is_a_json_schema() -> None:
    schemas = [*DOCUMENT["components"]["schemas"].values()]
    schemas += [part["schema"] for part in parts(DOCUMENT["paths"]) if "schema" in part]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)


def test_operations_have_names_of_their_own_and_an_area() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in names)
    areas = {tag for operation in OPERATIONS.values() for tag in operation["tags"]}
    assert areas == {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(operation["summary"] and operation["description"] for operation in OPERATIONS.values())


@pytest.mark.parametrize("key", OPERATIONS)
def test_the_parameters_in_a_path_are_declared(key: str) -> None:
    declared = OPERATIONS[key].get("parameters", [])
    assert len({(each["name"], each["in"]) for each in declared}) == len(declared)
    in_path = [each for each in declared if each["in"] == "path"]
    assert [each["name"] for each in in_path] == re.findall(r"\{(\w+)\}", key)
    assert all(each["required"] for each in in_path)


def test_every_reference_resolves_and_every_schema_is_used() -> None:
    found = {part["$ref"] for part in parts(DOCUMENT) if "$ref" in part}
    for reference in found:
        node: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node
    assert {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]} <= found


def test_every_answer_that_is_no_success_is_a_problem() -> None:
    for operation in OPERATIONS.values():
        statuses = set(operation["responses"]) - {"default"}
        assert statuses
        assert all(status.startswith("2") for status in statuses)
        site = operation["operationId"].startswith("Site")  # which answers as its function does
        other = operation["responses"]["default"]
        assert site or other == {"$ref": "#/components/responses/Problem"}
        assert not site or operation["operationId"].endswith("Head") or MEDIA_TYPE in other["content"]


# What it says of requests holds


def test_there_is_an_example_of_every_body() -> None:
    assert set(EXAMPLES) == set(BODIES)


@pytest.mark.parametrize("key", EXAMPLES)
def test_a_body_that_is_described_is_one_that_is_taken(key: str) -> None:
    (schema,) = (each["schema"] for each in BODIES[key]["requestBody"]["content"].values())
    described = validator(DOCUMENT, schema)
    model = body_model(key)
    for example in EXAMPLES[key]:
        described.validate(example)
        model.model_validate(example)
        with pytest.raises(ValueError, match="nonsense"):
            model.model_validate(example | {"nonsense": 1})
        assert not described.is_valid(example | {"nonsense": 1})


@pytest.mark.parametrize("key", OPERATIONS)
def test_a_call_needs_the_credential_that_it_says(key: str, container: Container, call: Client) -> None:
    assert call("PUT", "/v1/functions/x", JOB).status == 201
    (api,) = (api for api in apis().values() if route_keys(key) & set(api.routes))
    (route_key,) = route_keys(key) & set(api.routes)
    method, _, path = key.partition(" ")

    def refusal(headers: Mapping[str, str]) -> int | None:
        event = {
            "routeKey": route_key,
            "rawPath": path,
            "headers": headers,
            "pathParameters": dict.fromkeys(re.findall(r"\{(\w+)\}", path), "x"),
            "requestContext": {"requestId": "r", "http": {"method": method}},
        }
        status = api(event, CONTEXT)["statusCode"]
        return status if status in (401, 403) else None

    said = OPERATIONS[key]["security"]
    for role in Role:
        sent = {"authorization": f"Bearer {credentials.create(container, 't1', role, 'test')}"}
        public = said == [{}]
        assert refusal(sent) == (None if public or {role.value: []} in said else 403)
    assert refusal({}) == (None if said == [{}] else 401)


# What it costs, and what it refuses to describe


def test_the_function_that_serves_it_loads_nothing_for_it() -> None:
    """Neither other functions nor what makes a description: a start would pay for it."""
    others = "'attestation', 'invoke', 'leases', 'market', 'hanzo_compute_host'"
    models = "'aws_lambda_powertools.event_handler.openapi.models'"
    code = f"import sys, job_intake.app; print(sorted({{{others}, {models}}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "openapi.json"
    arguments = ["--output", str(output)]
    assert openapi.main([*arguments, "--check"]) == 1
    assert openapi.main(arguments) == 0
    assert openapi.main([*arguments, "--check"]) == 0
    output.write_text(output.read_text().replace("SubmitJob", "SendJob"))
    assert openapi.main([*arguments, "--check"]) == 1
    assert "is not what the functions say" in capsys.readouterr().err


def of(*routes: Route, **handlers: str) -> Manifest:
    """The platform's own with other routes, and other handlers by function."""
    manifest = load()
    functions = {
        name: replace(each, handler=handlers.get(name, each.handler)) for name, each in manifest.functions.items()
    }
    return replace(manifest, routes=routes or manifest.routes, functions=functions)


def test_a_route_that_the_function_does_not_have_is_refused() -> None:
    with pytest.raises(DescriptionError, match="the template gives GET /nowhere to Market"):
        openapi.document(of(*load().routes, Route("GET", "/nowhere", "Market", "Nowhere")))


def test_a_route_that_the_template_does_not_give_is_refused() -> None:
    rest = [route for route in load().routes if route.name != "Regimes"]
    with pytest.raises(DescriptionError, match="Market has GET /v1/regimes, which the template does not give it"):
        openapi.document(of(*rest))


def test_one_name_for_two_operations_is_refused() -> None:
    routes = [replace(route, name="Site") if route.name == "SitePage" else route for route in load().routes]
    with pytest.raises(DescriptionError, match="two routes are called Site"):
        openapi.document(of(*routes))


class PolicyRequest(BaseModel):
    """There is another one in attestation."""


def other_policy(request: Annotated[PolicyRequest, Body()]) -> Any:
    """Only described."""
    return request


def test_one_name_for_two_bodies_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(wiring.container)
    api.route("POST", "/other", action=Action.POLICY, summary="Another policy")(other_policy)
    monkeypatch.setitem(sys.modules, "other", SimpleNamespace(api=api))
    monkeypatch.setitem(openapi.parts.AREAS, "other", openapi.parts.Area("Other", (__name__,)))
    with pytest.raises(DescriptionError, match="two models are called PolicyRequest"):
        openapi.document(of(*load().routes, Route("POST", "/other", "Dispatch", "Other"), Dispatch="other.handler"))


def test_a_module_without_an_area_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(openapi.parts.AREAS, "market")
    with pytest.raises(DescriptionError, match=r"market\.app have no area"):
        openapi.document()
