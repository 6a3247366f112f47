"""Routes are taken as an API Gateway HTTP API takes them."""

from __future__ import annotations

import pytest

from hanzo_compute_host.manifest import Route, load
from hanzo_compute_host.routes import Routes

TABLE = Routes(
    Route(method, path, path)
    for method, path in [
        ("GET", "/v1/jobs"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs/{id}"),
        ("GET", "/v1/jobs/latest"),
        ("GET", "/v1/jobs/{id}/logs"),
        ("GET", "/v1/jobs/latest/{what}"),
        ("GET", "/v1/{rest+}"),
        ("POST", "/fn/{name}/{path+}"),
        ("GET", "/"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "pattern", "parameters"),
    [
        ("GET", "/v1/jobs", "/v1/jobs", {}),
        ("GET", "/v1/jobs/7", "/v1/jobs/{id}", {"id": "7"}),
        ("GET", "/v1/jobs/latest", "/v1/jobs/latest", {}),
        ("GET", "/v1/jobs/%6Catest", "/v1/jobs/latest", {}),
        ("GET", "/v1/jobs/a%20b%25c", "/v1/jobs/{id}", {"id": "a b%c"}),
        ("GET", "/v1/jobs/7/logs", "/v1/jobs/{id}/logs", {"id": "7"}),
        ("GET", "/v1/jobs/latest/logs", "/v1/jobs/latest/{what}", {"what": "logs"}),
        ("GET", "/v1/jobs/7/other", "/v1/{rest+}", {"rest": "jobs/7/other"}),
        ("GET", "/v1/jobs/", "/v1/{rest+}", {"rest": "jobs/"}),
        ("POST", "/fn/f/a/b", "/fn/{name}/{path+}", {"name": "f", "path": "a/b"}),
        ("GET", "/", "/", {}),
    ],
)
def test_the_most_specific_route_wins(method: str, path: str, pattern: str, parameters: dict[str, str]) -> None:
    match = TABLE.match(method, path)
    assert match is not None
    assert (match.route.path, match.parameters) == (pattern, parameters)


@pytest.mark.parametrize("path", ["/v2", "/fn/f", "/fn//x", "", "/v1", "//"])
def test_no_route(path: str) -> None:
    assert TABLE.match("POST", path) is None


def test_a_path_knows_its_methods() -> None:
    assert TABLE.methods("/v1/jobs") == ["GET", "POST"]
    assert TABLE.methods("/nowhere") == []


def test_every_route_of_the_platform_finds_itself() -> None:
    manifest = load()
    routes = Routes(manifest.routes)
    for route in manifest.routes:
        match = routes.match(
            "PATCH" if route.method == "ANY" else route.method, route.path.replace("{", "x").replace("}", "")
        )
        assert match is not None
        assert match.route == route
    assert len(manifest.routes) == 72


@pytest.mark.parametrize("path", ["/v1/jobs/a%2Fresult", "/v1/jobs%2Fa", "/v1/jobs/a%2fevents"])
def test_an_encoded_slash_matches_nothing(path: str) -> None:
    """What is behind us sees the decoded path and would take another route than the one that was authorised."""
    table = Routes([Route("GET", each, "F") for each in ("/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/result")])
    assert table.match("GET", path) is None
    assert table.match("GET", "/v1/jobs/a/result") is not None


ANYTHING = Routes(
    Route(method, path, f"{method} {path}")
    for method, path in [
        ("ANY", "/fn/{name}"),
        ("POST", "/fn/{name}"),
        ("ANY", "/fn/{name}/{path+}"),
        ("GET", "/fn/{name}/{path+}"),
        ("GET", "/fn/status"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/fn/f", "ANY /fn/{name}"),
        ("POST", "/fn/f", "POST /fn/{name}"),
        ("HEAD", "/fn/f", "ANY /fn/{name}"),
        ("OPTIONS", "/fn/f/a/b", "ANY /fn/{name}/{path+}"),
        ("GET", "/fn/f/a/b", "GET /fn/{name}/{path+}"),
        ("DELETE", "/fn/f/", "ANY /fn/{name}/{path+}"),
        ("GET", "/fn/status", "GET /fn/status"),
        ("PUT", "/fn/status", "ANY /fn/{name}"),
    ],
)
def test_a_method_by_name_goes_before_any(method: str, path: str, route: str) -> None:
    match = ANYTHING.match(method, path)
    assert match is not None
    assert match.route.function == route


@pytest.mark.parametrize("method", ["ANY", "TRACE", "CONNECT", "PROPFIND", "get", "*", ""])
def test_any_stands_for_the_methods_of_http_alone(method: str) -> None:
    assert ANYTHING.match(method, "/fn/f") is None
    assert ANYTHING.methods("/fn/f") == ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]


def test_a_path_without_any_allows_what_it_has() -> None:
    assert TABLE.methods("/fn/f/x") == ["POST"]
