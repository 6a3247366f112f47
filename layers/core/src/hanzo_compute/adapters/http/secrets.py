"""The tenant's secrets, method by method."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

from hanzo_compute.adapters.http.client import ApiClient
from hanzo_compute.adapters.http.jobs import Page

Body = dict[str, Any]


class SecretsClient:
    """Secrets, which can be set and never read, and who has read them."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def put(self, name: str, value: bytes) -> Body:
        """Set a secret. Raises InvalidRequest."""
        body = {"value_base64": base64.b64encode(value).decode()}
        found: Body = self._client.call("PUT", _path(name), body=body).body
        return found

    def list_secrets(self, *, cursor: str | None = None, limit: int = 20) -> Page:
        """One page of secrets by name."""
        body = self._client.call("GET", "/v1/secrets", query={"cursor": cursor, "limit": limit}).body
        return Page(body["items"], body.get("next_cursor"))

    def remove(self, name: str) -> None:
        """Remove a secret. Raises NotFound."""
        self._client.call("DELETE", _path(name))

    def reads(self, *, secret: str | None = None, cursor: str | None = None, limit: int = 20) -> Page:
        """One page of the calls that have read secrets, newest first."""
        query = {"secret": secret, "cursor": cursor, "limit": limit}
        body = self._client.call("GET", "/v1/audit", query=query).body
        return Page(body["items"], body.get("next_cursor"))


def _path(name: str) -> str:
    return "/v1/secrets/" + quote(name, safe="")
