"""Quotes, receipts and the transparency log, method by method."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import quote

from hanzo_compute import errors
from hanzo_compute.adapters.http.client import ApiClient

Body = dict[str, Any]


class ProofClient:
    """What a platform says that can be verified without it; nothing is verified here."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @property
    def url(self) -> str:
        """The platform's address."""
        return self._client.url

    def quote(self, spec: Body) -> Body:
        """What a job of this spec can cost. Raises InvalidSpec or NotSupported."""
        found: Body = self._client.call("POST", "/v1/quotes", body=spec, repeatable=True).body
        return found

    def receipt(self, job: str, attempt: int | None = None, *, wait_s: float = 0.0) -> Body | None:
        """A receipt of a job or (``i-…``) an invocation, or None while its leaf waits for a checkpoint.

        Raises Conflict while the job has not ended; NotFound also while the invocation's batch is not written.
        """
        kind = "invocations" if job.startswith("i-") else "jobs"
        path = f"/v1/{kind}/{quote(job, safe='')}/receipt"
        query = {"attempt": attempt, "wait_s": wait_s or None}
        found = self._client.call("GET", path, query=query, wait_s=wait_s).body
        if not isinstance(found, dict):
            raise errors.Unavailable("the platform's answer is no receipt")
        return None if found.get("status") == "pending" else found

    def checkpoint(self) -> Body:
        """The newest checkpoint: ``origin key size root note at``. Raises NotFound: nothing is logged yet."""
        found = self._client.call("GET", "/v1/log/checkpoint").body
        if not isinstance(found, dict):
            raise errors.Unavailable("the platform's answer is no checkpoint")
        return found

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the log of ``new`` leaves extends that of ``old``."""
        found = self._client.call("GET", "/v1/log/consistency", query={"from": old, "to": new}).body
        try:
            return [bytes.fromhex(node) for node in found["hashes"]]
        except (ValueError, KeyError, TypeError):
            raise errors.Unavailable("the platform's answer is no proof") from None

    def entries(self, start: int) -> bytes:
        """Leaves (32 bytes each) from ``start`` on: as many as the platform gives at a time."""
        found = self._client.call("GET", "/v1/log/entries", query={"start": start}).body
        try:
            return base64.b64decode(found["leaves"], validate=True)
        except (binascii.Error, ValueError, KeyError, TypeError):
            raise errors.Unavailable("the platform's answer is no list of leaves") from None
