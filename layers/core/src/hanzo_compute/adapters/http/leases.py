"""The agent's view of the platform over HTTP: ``ports.LeaseApi``."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from hanzo_compute.adapters.http.client import ApiClient
from hanzo_compute.adapters.http.problem import of_document
from hanzo_compute.errors import ComputeError
from hanzo_compute.model.bounds import BLOB_MAX
from hanzo_compute.ports import Beat, Completed, Lease, LogEntry, Report, Seen, Touched, Want


class HttpLeaseApi:
    """Leases over ``/v1/leases…`` with a key of role ``runner``; safe to share between threads.

    All calls but :meth:`lease` are repeated after failures that may pass: the attempt's number, and in logs
    the sequence number, make repeating them harmless. A lost answer to ``lease`` is left to lapse.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def lease(self, want: Want, wait_s: float) -> list[Lease]:
        """What is wanted; waits up to ``wait_s`` for the first."""
        reply = self._client.call("POST", "/v1/leases", body=asdict(want) | {"wait_s": wait_s}, wait_s=wait_s)
        return [_lease(item) for item in reply.body["leases"]]

    def again(self, job: str, attempt: int) -> Lease:
        """The lease of an attempt that this agent holds. Raises StaleFence."""
        path = f"/v1/leases/{quote(job, safe='')}"
        return _lease(self._client.call("GET", path, query={"attempt": attempt}).body)

    def heartbeat(self, job: str, attempt: int, *, seen: Beat, wait_s: float) -> Beat:
        """Renew the lease; waits up to ``wait_s`` for an answer other than ``seen``. Raises StaleFence."""
        body = {"seen": {"cancel": seen.cancel, "follow": seen.follow}, "wait_s": wait_s}
        answer = self._post(job, "heartbeat", attempt, body, wait_s=wait_s)
        return Beat(answer["cancel"], answer["follow"])

    def logs(self, job: str, attempt: int, seq: int, entries: Sequence[LogEntry]) -> None:
        """Append a log chunk. Raises StaleFence."""
        self._post(job, "logs", attempt, {"seq": seq, "entries": [_entry(entry) for entry in entries]})

    def upload(self, job: str, attempt: int, data: bytes) -> str:
        """Store output bytes for the job's tenant; returns the blob id. Raises StaleFence."""
        request = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        blob = self._post(job, "blobs", attempt, request)
        if blob["upload"] is not None:
            self._client.store(blob["upload"]["url"], data, method=blob["upload"]["method"])
        return str(blob["id"])

    def download(self, url: str) -> bytes:
        """Bytes behind a presigned URL of a lease, at most ``BLOB_MAX``."""
        return self._client.fetch(url, limit=BLOB_MAX)

    def entry(self, job: str, attempt: int, key: bytes, *, fresh: bool) -> Seen:
        """A key-value entry of the job's function; ``fresh``: as it is now. Raises StaleFence, PermissionDenied."""
        found = self._post(job, "entries", attempt, {"key_base64": _base64(key), "fresh": fresh})
        return Seen(found["rev"], found["version"], _bytes(found["value_base64"]))

    def secret(self, job: str, attempt: int, name: str) -> bytes | None:
        """A secret that the job's function was granted, None if there is none. Raises StaleFence, PermissionDenied."""
        return _bytes(self._post(job, "secrets", attempt, {"name": name})["value_base64"])

    def complete(self, reports: Sequence[Report], *, want: Want | None = None) -> Completed:
        """Hand in outcomes, each by itself, and lease what is there of ``want``.

        A lost answer loses what was leased with it: that lapses, as after :meth:`lease`.
        """
        body: dict[str, Any] = {"reports": [_report(each) for each in reports]}
        if want is not None:
            body["want"] = asdict(want)
        answer = self._client.call("POST", "/v1/leases/complete", body=body, repeatable=True).body
        states: list[str | ComputeError] = [
            str(each["state"]) if "state" in each else of_document(each["problem"]) for each in answer["results"]
        ]
        return Completed(states, [_lease(item) for item in answer.get("leases", ())])

    def release(self, job: str, attempt: int, reason: str) -> None:
        """Give the attempt back unfinished: it costs the tenant no retry. Raises StaleFence."""
        self._post(job, "release", attempt, {"reason": reason})

    def _post(self, job: str, verb: str, attempt: int, body: dict[str, Any], *, wait_s: float = 0.0) -> Any:
        path = f"/v1/leases/{quote(job, safe='')}/{verb}"
        return self._client.call("POST", path, body={"attempt": attempt} | body, repeatable=True, wait_s=wait_s).body


def _lease(item: dict[str, Any]) -> Lease:
    return Lease(
        job=item["job"],
        attempt=item["attempt"],
        runtime=item["runtime"],
        spec=item["spec"],
        lease_ms=item["lease_ms"],
        timeout_ms=item["timeout_ms"],
        timeout_is_deadline=item["timeout_is_deadline"],
        module_url=item.get("module_url"),
        input_url=item.get("input_url"),
        follow=item.get("follow", False),
        terms=item.get("terms", {}),
        delivered_tier=item.get("delivered_tier", 0),
        evidence=item.get("evidence"),
        call=item.get("call", ""),
    )


def _report(report: Report) -> dict[str, Any]:
    shown: dict[str, Any] = {"job": report.job, "attempt": report.attempt, "outcome": report.outcome.as_json()}
    if report.entries:
        shown["log"] = {"seq": report.log_seq, "entries": [_entry(entry) for entry in report.entries]}
    if report.signed is not None:
        shown["statement"] = {"key": report.signed.key.hex(), "signature": report.signed.signature.hex()}
    if report.touched is not None:
        shown["kv"] = [_touched(each) for each in report.touched]
    return shown


def _touched(entry: Touched) -> dict[str, Any]:
    shown: dict[str, Any] = {"key_base64": _base64(entry.key), "rev": entry.rev}
    if entry.changed:
        shown |= {"changed": True, "version": entry.version}
    if entry.blob is not None:
        shown["blob"] = entry.blob
    elif entry.changed and entry.value is not None:
        shown["value_base64"] = _base64(entry.value)
    return shown


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _entry(entry: LogEntry) -> dict[str, Any]:
    return {"at_ms": entry.at_ms, "stream": entry.stream, "text": entry.text}
