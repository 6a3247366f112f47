"""The one function that decides whether a caller may do something. What is not allowed is denied."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hanzo_compute.errors import PermissionDenied, Unauthenticated


class Role(StrEnum):
    """What a credential is for."""

    OWNER = "owner"
    RUNNER = "runner"


class Action(StrEnum):
    """What a route does."""

    SUBMIT = "jobs:submit"
    READ = "jobs:read"
    CANCEL = "jobs:cancel"
    UPLOAD = "blobs:write"
    DEPLOY = "functions:write"
    SECRETS = "secrets:write"
    POLICY = "policies:write"
    LEASE = "leases:use"
    DESCRIBE = "api:describe"


GRANTS: Final[dict[Role, frozenset[Action]]] = {
    Role.OWNER: frozenset(
        {
            Action.SUBMIT,
            Action.READ,
            Action.CANCEL,
            Action.UPLOAD,
            Action.DEPLOY,
            Action.SECRETS,
            Action.POLICY,
            Action.DESCRIBE,
        },
    ),
    Role.RUNNER: frozenset({Action.LEASE}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller."""

    key_id: str
    tenant: str
    role: Role


def known(principal: Principal | None) -> Principal:
    """The principal, if there is one. Raises Unauthenticated."""
    if principal is None:
        raise Unauthenticated(
            "this call needs a credential",
            hint="send 'Authorization: Bearer hzk_…'; `hzc up` shows the owner's key when it creates it",
        )
    return principal


def authorize(principal: Principal | None, action: Action) -> Principal:
    """The principal, if it may do ``action``; whose records it may do it to is its ``tenant`` alone.

    Raises:
        Unauthenticated: nobody is known to be calling.
        PermissionDenied: the credential's role does not grant the action.
    """
    principal = known(principal)
    if action not in GRANTS.get(principal.role, frozenset()):
        raise PermissionDenied(
            f"a {principal.role} credential may not do {action}",
            hint="agents use runner credentials for leases only; people use an owner credential",
            action=str(action),
        )
    return principal
