"""Checks, and what a platform's checks found in one piece of evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from hanzo_compute.attestation.binding import Binding
from hanzo_compute.attestation.policy import Policy
from hanzo_compute.model.evidence import Tier


class Unreadable(ValueError):
    """Evidence, or what came with it, is not of its format: the message says where and why."""


class Group(StrEnum):
    """What a check is about."""

    GENUINE = "genuine"
    """Signatures, and chains to a pinned root: all of them together are what ``authentic`` says."""
    FRESH = "fresh"
    MEASURED = "measured"
    BOUND = "bound"
    POLICY = "policy"


class Check(NamedTuple):
    """One check. Its id is the stable code that a refusal names: ``snp.signature``.

    There are dozens in an appraisal: a tuple is made in a third of the time of a frozen dataclass.
    """

    id: str
    group: Group
    ok: bool | None
    """None is unknown, which is never good enough where the policy asks for it."""
    detail: str
    expected: str | None = None
    actual: str | None = None
    source: str | None = None
    """What demands it: section of a specification, or field of the policy."""
    required: bool = True
    """Whether the verdict depends on it; a genuine one always is."""
    missing: str | None = None
    """The collateral for want of which it is unknown: with it, another verdict is possible."""

    def as_json(self) -> dict[str, Any]:
        """The check as the JSON object that results carry."""
        return {
            "id": self.id,
            "group": self.group.value,
            "ok": self.ok,
            "required": self.required,
            "detail": self.detail,
            "expected": self.expected,
            "actual": self.actual,
            "source": self.source,
            **({"missing": self.missing} if self.missing else {}),
        }


class Context(NamedTuple):
    """What evidence is judged against, apart from itself."""

    now_ms: int
    policy: Policy
    nonce: bytes | None = None
    """What the verifier challenged with, in the platform's own field."""
    binding: Binding | None = None
    """What the evidence must commit to: nonce, keys and GPU evidence."""
    anchors: tuple[bytes, ...] = ()
    """Certificates (PEM or DER) that the operator hands in as roots, beside the pinned ones."""
    activated: frozenset[tuple[bytes, bytes]] = frozenset()
    """TPM keys for which the verifier made a credential that was solved: the names of the endorsement key, which it was
    made for, and of the attestation key."""


@dataclass(slots=True)
class Findings:
    """What was found in one piece of evidence; every check runs, whatever the ones before it say."""

    checks: list[Check] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    """What the evidence says, by the names of the platform's specification; bytes are hex."""
    tier: Tier = Tier.OPEN
    """The tier that it proves by itself if it is accepted."""
    tier_why: str = ""
    """Why not the next."""
    tiered: bool = True
    """Whether the tier of several devices depends on it: a switch between GPUs neither raises nor lowers it."""
    identity: str | None = None
    """Of the device, where it tells: two GPUs must be two."""
    commitment: bytes | None = None
    """What it commits to: report data, user data, qualifying data or the nonce of a GPU."""
    nonce: bytes | None = None
    """The nonce, of a platform that has a field for it beside."""

    def check(  # noqa: PLR0913 the fields of a check
        self,
        id: str,  # noqa: A002 the name of the field
        group: Group,
        ok: bool | None,
        detail: str,
        *,
        expected: object = None,
        actual: object = None,
        source: str | None = None,
        required: bool = True,
        missing: str | None = None,
    ) -> bool:
        """Write a check down; whether it holds. ``bytes`` are shown as hex; a genuine one is always required."""
        required = required or group is Group.GENUINE
        shown = expected if expected is None else _shown(expected)
        found = actual if actual is None else _shown(actual)
        # As Check(...) makes it, without a call in between: this is what an appraisal does most often.
        fields = (id, group, ok, detail, shown, found, source, required, missing)
        self.checks.append(tuple.__new__(Check, fields))
        return ok is True

    def unreadable(self, id: str, why: str) -> Findings:  # noqa: A002 the name of the field
        """The evidence cannot be read: nothing in it is genuine."""
        self.check(id, Group.GENUINE, False, why)
        return self


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)
