"""Keys: shown once, stored as hashes, with a tenant and a role, and decided on in one place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanzo_compute.errors import PermissionDenied, Unauthenticated
from hanzo_compute.model import keys
from hanzo_compute.security.authorizer import GRANTS, Action, Principal, Role, authorize
from hanzo_compute.services import credentials
from tests.support.faults import FaultyStore, scripted
from tests.support.stepped import Platform


def test_a_key_authenticates_its_tenant_and_role() -> None:
    platform = Platform()
    for tenant, role in (("acme", Role.OWNER), ("globex", Role.RUNNER)):
        key = credentials.create(platform.ctx, tenant, role, "test")
        found = credentials.authenticate(platform.ctx, f"Bearer {key}")
        assert found is not None
        assert (found.tenant, found.role) == (tenant, role)
        assert credentials.authenticate(platform.ctx, f"bearer   {key} ") == found


def test_the_secret_is_stored_nowhere() -> None:
    platform = Platform()
    key = credentials.create(platform.ctx, "acme", Role.OWNER, "test")
    _, key_id, secret = key.split("_", 2)
    record = platform.store.get(keys.credential(key_id))
    assert record is not None
    assert secret not in str(record.body)


def test_what_is_no_key_authenticates_nobody() -> None:
    platform = Platform()
    key = credentials.create(platform.ctx, "acme", Role.OWNER, "test")
    last = "A" if key[-1] != "A" else "B"
    unknown = key[:4] + "0" * 26 + key[30:]
    wrong = [None, "", "Bearer", "Bearer ", key, f"Basic {key}", f"Bearer {key[:-1]}{last}", f"Bearer {key}x"]
    for header in [*wrong, f"Bearer {unknown}", "Bearer ü", f"Bearer {key}\n{key}"]:
        assert credentials.authenticate(platform.ctx, header) is None, header


def test_the_owners_key_is_made_once() -> None:
    platform = Platform()
    key = credentials.ensure_owner(platform.ctx)
    assert key is not None
    found = credentials.authenticate(platform.ctx, f"Bearer {key}")
    assert found is not None
    assert (found.tenant, found.role) == (credentials.DEFAULT_TENANT, Role.OWNER)
    assert credentials.ensure_owner(platform.ctx) is None


def test_each_start_gives_the_agents_a_new_key_and_ends_the_old_one() -> None:
    platform = Platform()
    first, second = credentials.ensure_runner(platform.ctx), credentials.ensure_runner(platform.ctx)
    assert credentials.authenticate(platform.ctx, f"Bearer {first}") is None
    found = credentials.authenticate(platform.ctx, f"Bearer {second}")
    assert found is not None
    assert found.role is Role.RUNNER


@pytest.mark.parametrize("earlier", [False, True])
def test_of_two_starts_at_once_one_key_stays(earlier: bool) -> None:
    platform = Platform()
    made = [credentials.ensure_runner(platform.ctx)] if earlier else []

    class Late(FaultyStore):
        def transact(self, operations):  # type: ignore[no-untyped-def]
            if len(made) == earlier:
                made.append(credentials.ensure_runner(platform.ctx))
            super().transact(operations)

    made.append(credentials.ensure_runner(replace(platform.ctx, store=Late(platform.store, scripted()))))
    known = [credentials.authenticate(platform.ctx, f"Bearer {key}") is not None for key in made]
    assert known == [False] * (len(made) - 1) + [True]


def test_a_role_may_do_what_it_is_granted_and_nothing_else() -> None:
    for role in Role:
        caller = Principal("k", "acme", role)
        for action in Action:
            if action in GRANTS[role]:
                assert authorize(caller, action) is caller
            else:
                with pytest.raises(PermissionDenied):
                    authorize(caller, action)
    assert GRANTS[Role.RUNNER] == {Action.LEASE}


def test_nobody_may_do_nothing() -> None:
    for action in Action:
        with pytest.raises(Unauthenticated):
            authorize(None, action)
