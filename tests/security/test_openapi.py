"""What a fuzzer driven by the OpenAPI description finds: no 5xx; every refusal is a problem that names its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

import job_intake.app  # noqa: F401  (registers the routes)
import market.app
from hanzo_compute.front.openapi import describe
from job_intake.api import api
from tests.support.live import Platform

pytestmark = pytest.mark.slow


def operations() -> list[Any]:
    """Every operation, without the parameters that make it wait."""
    found = []
    for each in (api, market.app.api):
        document = describe(each, "Hanzo Compute")
        for path in document["paths"].values():
            for operation in path.values():
                parameters = operation.get("parameters", [])
                operation["parameters"] = [each for each in parameters if each["name"] not in ("wait_s", "follow")]
        document["paths"].pop("/healthz", None)  # takes no input, so there is nothing to get wrong
        found += [each.ok() for each in schemathesis.openapi.from_dict(document).get_all_operations()]
    return found


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
@pytest.mark.timeout(300)
def test_an_operation_survives_the_fuzzer(operation: Any, mode: GenerationMode, platform: Platform) -> None:
    headers = {"Authorization": f"Bearer {platform.key}"}

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def survives(case: schemathesis.Case) -> None:
        response = case.call(base_url=platform.url, headers=headers, timeout=20)
        assert response.status_code < 500, response.content
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
            problem = json.loads(response.content)
            assert problem["detail"]
            if response.status_code == 400:
                assert problem["errors"]
                assert all(error["field"] and error["message"] for error in problem["errors"])

    survives()
