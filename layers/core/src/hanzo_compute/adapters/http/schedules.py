"""Schedules of a tenant, method by method."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from hanzo_compute.adapters.http.client import ApiClient
from hanzo_compute.model.bounds import PAGE_MAX

Body = dict[str, Any]


class SchedulesClient:
    """Schedules and their runs as the JSON objects of the API."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def put(self, name: str, spec: Body, *, revision: int | None = None) -> Body:
        """Create or replace a schedule. Raises Conflict when it has another revision than ``revision``."""
        headers = {} if revision is None else {"If-Match": f'"{revision}"'}
        found: Body = self._client.call("PUT", _path(name), body=spec, headers=headers).body
        return found

    def get(self, name: str) -> Body:
        """A schedule with its spec and the times to come. Raises NotFound."""
        found: Body = self._client.call("GET", _path(name)).body
        return found

    def all(self) -> list[Body]:
        """All schedules by name, without their jobs."""
        found: list[Body] = []
        cursor: str | None = None
        while True:
            page = self._client.call("GET", "/v1/schedules", query={"cursor": cursor, "limit": PAGE_MAX}).body
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def runs(self, name: str) -> list[Body]:
        """The last runs of a schedule, newest first. Raises NotFound."""
        found: list[Body] = self._client.call("GET", f"{_path(name)}/runs").body["items"]
        return found

    def delete(self, name: str) -> None:
        """Delete a schedule. Raises NotFound; also after a call that was repeated because its answer was lost."""
        self._client.call("DELETE", _path(name))


def _path(name: str) -> str:
    return f"/v1/schedules/{quote(name, safe='')}"
