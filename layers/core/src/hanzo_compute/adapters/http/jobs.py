"""The tenant's API, method by method."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hanzo_compute import errors
from hanzo_compute.adapters.http.client import ApiClient
from hanzo_compute.adapters.http.follow import LogFollower
from hanzo_compute.model.bounds import BLOB_MAX, WAIT_S_MAX
from hanzo_compute.model.states import State

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was accepted; ``replayed`` when an earlier call with the same idempotency key made it."""

    job: Body
    replayed: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; ``next_cursor`` is None at its end."""

    items: list[Body]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Log entries ``{"at", "stream", "text"}``; ``done`` when the job has ended and nothing is left."""

    items: list[Body]
    cursor: str
    done: bool


@dataclass(frozen=True, slots=True)
class Health:
    """What /healthz said; ``date`` is the platform's Date header."""

    version: str
    date: str | None


class JobsClient:
    """Jobs, logs, results, blobs and dead letters of the tenant that the client's key belongs to.

    Jobs, events and outcomes are the JSON objects of the API.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._sleep = sleep
        self._monotonic = monotonic

    @property
    def url(self) -> str:
        """The platform's address."""
        return self._client.url

    def submit(self, spec: Body, *, idempotency_key: str | None = None) -> Submitted:
        """Submit a job spec; with an idempotency key the call is repeated safely."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        reply = self._client.call("POST", "/v1/jobs", body=spec, headers=headers)
        return Submitted(reply.body, reply.headers.get("Idempotency-Replayed") == "true")

    def validate(self, spec: Body) -> Body:
        """The spec with its defaults and digest. Raises InvalidSpec or NotSupported."""
        found: Body = self._client.call("POST", "/v1/validate", body=spec, repeatable=True).body
        return found

    def list_jobs(
        self,
        *,
        state: str | None = None,
        label: str | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> Page:
        """One page of summaries, newest first; ``label`` is ``name=value``."""
        query = {"state": state, "label": label, "cursor": cursor, "limit": limit}
        return self._page("/v1/jobs", query)

    def get(self, job: str) -> Body:
        """A job's view, its spec, and the outcome of its last attempt once there is one."""
        found: Body = self._client.call("GET", _path(job)).body
        return found

    def wait(self, job: str, *, timeout_s: float | None = None) -> Body:
        """The job once it has ended, or as it is when ``timeout_s`` is over."""
        start = self._monotonic()
        view = self.get(job)
        while not State(view["state"]).terminal:
            left = float(WAIT_S_MAX)
            if timeout_s is not None:
                left = min(left, timeout_s - (self._monotonic() - start))
                if left <= 0:
                    break
            query = {"wait_s": round(left, 3), "seen_state": view["state"]}
            view = self._client.call("GET", _path(job), query=query, wait_s=left).body
        return view

    def events(self, job: str) -> list[Body]:
        """All events of a job, oldest first."""
        return [event for page in self._pages(_path(job, "events"), {"limit": 100}) for event in page.items]

    def logs(self, job: str, *, cursor: str = "", follow: bool = False, wait_s: float = 0.0) -> LogPage:
        """One page of the log after ``cursor``; with ``follow`` a long poll of up to ``wait_s`` seconds."""
        query: Body = {"cursor": cursor or None}
        if follow:
            query |= {"follow": 1, "wait_s": wait_s}
        body = self._client.call("GET", _path(job, "logs"), query=query, wait_s=wait_s).body
        return LogPage(body["items"], body["cursor"], body["done"])

    def follow(self, job: str, *, cursor: str = "") -> Iterator[Body]:
        """Log entries after ``cursor`` until the job has ended: history, then live, each entry once.

        A stream that is cut is taken up again where it ended. Raises Unavailable after an outage of a minute.
        """
        path = _path(job, "logs")
        return LogFollower(self._client, path, sleep=self._sleep, monotonic=self._monotonic).entries(cursor)

    def result(self, job: str) -> Body:
        """The end of a job. Raises Conflict while it has not ended (``data["state"]``)."""
        found: Body = self._client.call("GET", _path(job, "result")).body
        return found

    def outputs(self, job: str) -> list[Body]:
        """The outputs: small ones inline, larger ones with a presigned URL."""
        return [item for page in self._pages(_path(job, "outputs"), {}) for item in page.items]

    def output(self, job: str, name: str = "stdout") -> bytes:
        """The bytes of one output. Raises NotFound."""
        for item in self.outputs(job):
            if item["name"] == name and "inline_base64" in item:
                return base64.b64decode(item["inline_base64"])
            if item["name"] == name:
                return self._client.fetch(item["url"], limit=int(item["size"]))
        raise errors.NotFound(
            f"job {job} has no output named {name}", hint=f"hzc show {job} says how it ended and what it left"
        )

    def trace(self, job: str, *, attempt: int | None = None) -> Body:
        """Why a job was placed where it was, last or for an attempt. Raises NotFound."""
        found: Body = self._client.call("GET", _path(job, "trace"), query={"attempt": attempt}).body
        return found

    def regimes(self) -> Body:
        """What the platform has learnt of its infrastructure."""
        found: Body = self._client.call("GET", "/v1/regimes").body
        return found

    def cancel(self, job: str) -> Body:
        """Ask a job to stop. Raises Conflict when it has ended already."""
        found: Body = self._client.call("POST", _path(job, "cancel"), repeatable=True).body
        return found

    def rerun(self, job: str) -> Body:
        """A new job with the same spec."""
        found: Body = self._client.call("POST", _path(job, "rerun")).body
        return found

    def upload_blob(self, data: bytes) -> str:
        """Store bytes unless the platform has them; returns their id."""
        if len(data) > BLOB_MAX:
            raise errors.PayloadTooLarge(
                f"{len(data)} bytes are over the bound of {BLOB_MAX} for one blob",
                hint="send less, or in parts",
            )
        request = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        blob = self._client.call("POST", "/v1/blobs", body=request, repeatable=True).body
        if blob["upload"] is not None:
            self._client.store(blob["upload"]["url"], data, method=blob["upload"]["method"])
        return str(blob["id"])

    def blob(self, blob: str) -> bytes:
        """The bytes of a blob of the tenant's. Raises NotFound; Rejected when they are not what its id says."""
        found = self._client.call("GET", f"/v1/blobs/{quote(blob, safe='')}").body
        data = self._client.fetch(str(found["url"]), limit=BLOB_MAX)
        if blob != f"b1-{hashlib.sha256(data).hexdigest()}":
            raise errors.Rejected(f"what the platform gave as {blob} has another digest", name="blob")
        return data

    def dead_letters(self, *, cursor: str | None = None, limit: int = 20) -> Page:
        """One page of the jobs that the platform gave up on."""
        return self._page("/v1/dead-letters", {"cursor": cursor, "limit": limit})

    def redrive(self, job: str) -> Body:
        """A new job in place of a dead one. Raises Conflict when it is not dead."""
        found: Body = self._client.call("POST", f"/v1/dead-letters/{quote(job, safe='')}/redrive").body
        return found

    def health(self) -> Health:
        """Whether the platform answers. Raises Unavailable."""
        reply = self._client.call("GET", "/healthz")
        if not isinstance(reply.body, dict) or reply.body.get("status") != "ok":
            raise errors.Unavailable(f"what answers at {self.url} is not a healthy platform")
        return Health(str(reply.body.get("version", "")), reply.headers.get("Date"))

    def _page(self, path: str, query: Body) -> Page:
        body = self._client.call("GET", path, query=query).body
        return Page(body["items"], body.get("next_cursor"))

    def _pages(self, path: str, query: Body) -> Iterator[Page]:
        cursor: str | None = None
        while True:
            page = self._page(path, query | {"cursor": cursor})
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return


def _path(job: str, part: str = "") -> str:
    return f"/v1/jobs/{quote(job, safe='')}" + (f"/{part}" if part else "")
