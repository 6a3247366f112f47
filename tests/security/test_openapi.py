"""What a fuzzer driven by the OpenAPI description finds: no 5xx; every refusal is a problem that names its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from hanzo_compute.security.authorizer import Role
from hanzo_compute_host import openapi
from tests.support.live import Platform

pytestmark = pytest.mark.slow


def operations() -> list[Any]:
    """Every operation that takes input, without what makes it wait."""
    document = openapi.document()
    for path, item in list(document["paths"].items()):
        if path.startswith("/fn/"):
            # Functions look at methods; the platform treats all alike.
            document["paths"][path] = {"post": item["post"]}
        for operation in document["paths"][path].values():
            parameters = operation.get("parameters", [])
            operation["parameters"] = [each for each in parameters if each["name"] not in ("wait_s", "follow")]
    for schema in document["components"]["schemas"].values():
        schema.get("properties", {}).pop("wait_s", None)
    document["paths"].pop("/healthz")  # takes no input, so there is nothing to get wrong
    return [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]


@pytest.fixture(scope="module")
def keys(platform: Platform) -> dict[str, str]:
    """By the name of the credential that an operation says it needs."""
    return {"owner": platform.key, "runner": platform.tenant("platform", Role.RUNNER)}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
@pytest.mark.timeout(300)
def test_an_operation_survives_the_fuzzer(
    operation: Any, mode: GenerationMode, platform: Platform, keys: dict[str, str]
) -> None:
    (credential,) = (name for each in operation.definition.raw["security"] for name in each)
    headers = {"Authorization": f"Bearer {keys[credential]}"}

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def survives(case: schemathesis.Case) -> None:
        response = case.call(base_url=platform.url, headers=headers, timeout=20)
        assert response.status_code < 500, response.content
        if mode is GenerationMode.POSITIVE:
            # The other one also leaves the credential out.
            assert response.status_code != 401, response.content
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
            problem = json.loads(response.content)
            assert problem["detail"]
            if response.status_code == 400:
                assert problem["errors"]
                assert all(error["field"] and error["message"] for error in problem["errors"])

    survives()
