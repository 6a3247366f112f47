"""What the router can be asked, method by method."""

from __future__ import annotations

from typing import Any

from hanzo_compute.adapters.http.client import ApiClient

Body = dict[str, Any]


class RoutingClient:
    """Plans as the JSON objects of the API."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def plan(self, problem: Body) -> Body:
        """The next action, the plan and the trace. Raises InvalidRequest."""
        # Nothing is stored: it may be asked again.
        found: Body = self._client.call("POST", "/v1/plan/efe", body=problem, repeatable=True).body
        return found
