"""The tenant's functions, method by method."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from hanzo_compute.adapters.http import sse
from hanzo_compute.adapters.http.client import ApiClient, Exchanged
from hanzo_compute.adapters.http.jobs import Page
from hanzo_compute.adapters.http.problem import of_document
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.bounds import RESPONSE_MAX

Body = dict[str, Any]

SYNC_S = 30.0
"""Longest time that the platform holds a call."""


class FunctionsClient:
    """Functions, their versions and aliases, as the JSON objects of the API."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def deploy(self, name: str, spec: Body, *, publish: bool = True) -> Body:
        """Make a version, or get the newest one if it is just this. Raises InvalidRequest."""
        query = {} if publish else {"publish": "false"}
        found: Body = self._client.call("PUT", _path(name), body=spec, query=query).body
        return found

    def list_functions(self, *, cursor: str | None = None, limit: int = 20) -> Page:
        """One page of functions by name."""
        body = self._client.call("GET", "/v1/functions", query={"cursor": cursor, "limit": limit}).body
        return Page(body["items"], body.get("next_cursor"))

    def get(self, name: str) -> Body:
        """A function: versions, aliases and their last changes. Raises NotFound."""
        found: Body = self._client.call("GET", _path(name)).body
        return found

    def version(self, name: str, number: int | str) -> Body:
        """One version with its spec. Raises NotFound."""
        found: Body = self._client.call("GET", _path(name, "versions", str(number))).body
        return found

    def set_alias(self, name: str, alias: str, weights: dict[str, int]) -> Body:
        """Point an alias at versions by weight. Raises InvalidRequest."""
        path = _path(name, "aliases", alias)
        found: Body = self._client.call("PUT", path, body={"weights": weights}).body
        return found

    def remove_alias(self, name: str, alias: str) -> Body:
        """The function without an alias. Raises NotFound, Conflict."""
        found: Body = self._client.call("DELETE", _path(name, "aliases", alias)).body
        return found

    def rollback(self, name: str, alias: str = "live") -> Body:
        """Point an alias where it pointed before; not repeated, as each call goes back one more. Raises Conflict."""
        found: Body = self._client.call("POST", _path(name, "rollback"), body={"alias": alias}).body
        return found

    def invoke(self, name: str, ref: str | None, data: bytes) -> Exchanged:
        """Call a function: what it answers, or (202) the job that the call became. Raises FunctionFailed."""
        return self._client.exchange(
            _path(name, "invoke"), data, query={"ref": ref}, limit=RESPONSE_MAX + 1, wait_s=SYNC_S
        )

    def stream(self, name: str, ref: str | None, data: bytes) -> Iterator[tuple[str, Body]]:
        """Call a function and hear it: an ``output`` for each piece of what it writes, and an ``end``.

        Raises:
            FunctionFailed, FunctionTimedOut: after the ``end`` that tells of it, or before anything was written.
            Unavailable: the stream was cut before its end.
        """
        headers = {"Content-Type": "application/octet-stream", "Accept": "text/event-stream"}
        path, query = _path(name, "invoke"), {"ref": ref}
        with self._client.stream(path, query=query, headers=headers, data=data, silence_s=2 * SYNC_S) as response:
            for event in sse.events(self._client.pieces(response)):
                told: Body = json.loads(event.data)
                yield event.event, told
                if "error" in told:
                    raise of_document(told["error"], told["status"])
                if event.event == "end":
                    return
        raise Unavailable("the stream was cut before its end", hint="the call may have run: hzc fn logs " + name)

    def logs(self, name: str, *, limit: int = 100) -> list[Body]:
        """The newest calls that wrote something, oldest first. Raises NotFound."""
        found: list[Body] = self._client.call("GET", _path(name, "logs"), query={"limit": limit}).body["items"]
        return found

    def remove(self, name: str) -> None:
        """Remove a function with its versions. Raises NotFound."""
        self._client.call("DELETE", _path(name))

    def entries(self, name: str, *, prefix: bytes = b"", cursor: str | None = None, limit: int = 20) -> Page:
        """One page of a function's key-value entries by key, without values; it may be short before the last."""
        query = {"prefix": _encoded(prefix), "encoding": "base64url", "cursor": cursor, "limit": limit}
        body = self._client.call("GET", _path(name, "kv"), query=query).body
        return Page(body["items"], body.get("next_cursor"))

    def entry(self, name: str, key: bytes) -> Body:
        """An entry: ``value`` if that is text, else ``value_base64``. Raises NotFound."""
        found: Body = self._client.call("GET", _path(name, "kv", _encoded(key)), query=_BY_BASE64).body
        return found

    def put_entry(self, name: str, key: bytes, value: bytes, expect: int = -1) -> Body:
        """Write an entry; not repeated if it expects a version. Raises Conflict."""
        body = {"value_base64": base64.b64encode(value).decode(), "expect": expect}
        path = _path(name, "kv", _encoded(key))
        found: Body = self._client.call("PUT", path, body=body, query=_BY_BASE64, repeatable=expect < 0).body
        return found

    def remove_entry(self, name: str, key: bytes, expect: int = -1) -> None:
        """Remove an entry. Raises NotFound, Conflict."""
        self._client.call("DELETE", _path(name, "kv", _encoded(key)), query={**_BY_BASE64, "expect": expect})


_BY_BASE64 = {"encoding": "base64url"}


def _encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def _path(*parts: str) -> str:
    return "/v1/functions/" + "/".join(quote(part, safe="") for part in parts)
