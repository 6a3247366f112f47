"""Attestation and the keys of jobs over HTTP: ``ports.KeyApi`` for runners, and the requester's side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from hanzo_compute.adapters.http.client import ApiClient
from hanzo_compute.adapters.http.jobs import Page
from hanzo_compute.model.evidence import Evidence
from hanzo_compute.ports import Asked, KeyAnswer, Presented

Body = dict[str, Any]


class HttpKeyApi:
    """With a key of role ``runner``; safe to share between threads."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def challenge(self, job: str, attempt: int, signing_key: bytes, sealing_key: bytes) -> Asked:
        """See :meth:`hanzo_compute.ports.KeyApi.challenge`. One whose answer was lost is forgotten in two minutes."""
        body = {"job": job, "attempt": attempt, "signing_key": _text(signing_key), "sealing_key": _text(sealing_key)}
        made = self._client.call("POST", "/v1/attestation/challenges", body=body, repeatable=True).body
        return Asked(str(made["id"]), bytes.fromhex(made["nonce"]))

    def credential(self, challenge: str, ek: bytes, ak: bytes) -> bytes:
        """See :meth:`hanzo_compute.ports.KeyApi.credential`. There is one for a challenge: it is not repeated."""
        body = {"challenge": challenge, "ek_tpm2b": _text(ek), "ak_tpm2b": _text(ak)}
        return base64.b64decode(self._client.call("POST", "/v1/attestation/activations", body=body).body["credential"])

    def present(self, challenge: str, evidence: Sequence[Evidence], activated: bytes | None = None) -> Presented:
        """See :meth:`hanzo_compute.ports.KeyApi.present`. Not repeated: the nonce is used up by the first."""
        pieces = [
            {"platform": each.platform.value, "files": {name: _text(data) for name, data in each.files.items()}}
            for each in evidence
        ]
        body: Body = {"challenge": challenge, "evidence": pieces}
        if activated is not None:
            body["activated"] = _text(activated)
        found = self._client.call("POST", "/v1/attestation/appraisals", body=body).body
        return Presented(str(found["token"]), str(found["result"]["verdict"]))

    def key(self, job: str, attempt: int, token: str) -> KeyAnswer:
        """See :meth:`hanzo_compute.ports.KeyApi.key`: asking again is answered alike."""
        body = {"attempt": attempt, "token": token}
        found = self._client.call("POST", _key_path(job), body=body, repeatable=True).body
        return KeyAnswer(base64.b64decode(found["sealed"]), int(found["tier"]), str(found["evidence"]))


class KeysClient:
    """What the requester of a job does: give its key, look at evidence, put policies."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def deposit(self, job: str, key: bytes) -> Body:
        """Give the platform the key of a job of tier 0 or 1."""
        return self._body("PUT", _key_path(job), {"key_base64": _text(key)})

    def entrust(self, job: str, attempt: int, recipient: bytes, sealed: bytes) -> Body:
        """Pass a key on that is sealed to the runner of an attempt."""
        body = {"attempt": attempt, "recipient": recipient.hex(), "sealed": _text(sealed)}
        return self._body("PUT", _key_path(job), body)

    def attestations(self, job: str) -> list[Body]:
        """How a job's runners were appraised, the newest first."""
        found: list[Body] = self._client.call("GET", f"/v1/jobs/{quote(job, safe='')}/attestations").body["items"]
        return found

    def put_policy(self, name: str, text: str) -> Body:
        """Put the next version of a policy."""
        return self._body("PUT", _policy_path(name), {"policy": text})

    def policy(self, name: str, version: int | None = None) -> Body:
        """A policy with all that it says."""
        found: Body = self._client.call("GET", _policy_path(name), query={"version": version}).body
        return found

    def policies(self, *, cursor: str | None = None, limit: int = 20) -> Page:
        """One page of policies by name."""
        found = self._client.call("GET", "/v1/attestation/policies", query={"cursor": cursor, "limit": limit}).body
        return Page(found["items"], found.get("next_cursor"))

    def _body(self, method: str, path: str, body: Body) -> Body:
        found: Body = self._client.call(method, path, body=body, repeatable=True).body
        return found


def _key_path(job: str) -> str:
    return f"/v1/jobs/{quote(job, safe='')}/key"


def _policy_path(name: str) -> str:
    return f"/v1/attestation/policies/{quote(name, safe='')}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
