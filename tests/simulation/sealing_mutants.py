"""Defects of sealed jobs and of the key broker that the simulation has to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

import pytest

from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.states import State
from hanzo_compute.ports import Check, JobStore, Operation, Put, Send
from hanzo_compute.services import (
    lease,
    release_key,
)
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim
from hanzo_compute_agent.carrier import Attempt, Carrier
from tests.simulation.mutants import Mutant, _Deaf, _transact
from tests.simulation.ports import SimStore

Patch = pytest.MonkeyPatch


def release_without_fence(patch: Patch) -> None:
    """A runner that has lost the job gets the key of whoever holds it now."""

    class Lenient(Claim):
        def holds(self, job: Job) -> bool:
            return job.state is State.RUNNING

    original = release_key._release

    def release(ctx: Context, claim: Claim, *given: Any, **more: Any) -> Any:
        return original(ctx, Lenient(claim.job, claim.attempt, claim.lessee), *given, **more)

    def held(ctx: Context, claim: Claim) -> Job:
        return lease.held(ctx, Lenient(claim.job, claim.attempt, claim.lessee))

    patch.setattr(release_key, "_release", release)
    patch.setattr(release_key, "lease", SimpleNamespace(held=held))


def second_recipient_overwrites(patch: Patch) -> None:
    original = release_key._released

    def released(ctx: Context, job: Job, recipient: bytes) -> Any:
        record = ctx.store.get(keys.key_release(job.id, job.attempt), fresh=True)
        same = record is not None and record.body["recipient"] == recipient.hex()
        return original(ctx, job, recipient) if same else None

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        free = [o for o in operations if isinstance(o, Put) and o.key.sk.startswith("RELEASE#")]
        return [replace(o, expect=None) if o in free else o for o in operations]  # type: ignore[arg-type]

    patch.setattr(release_key, "_released", released)
    _transact(patch, change)


def decision_in_another_transaction(patch: Patch) -> None:
    """What was decided is written down when the key has been released."""

    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        said = [o for o in operations if o.key.pk.startswith(keys.ATTESTATION) and o.key.sk.startswith(keys.LEAF)]
        if not said or len(said) == len(operations) or any("index" in getattr(o, "body", {}) for o in said):
            return operations
        store.transact([o for o in operations if o not in said])
        return said

    _transact(patch, change)


def challenge_not_consumed(patch: Patch) -> None:
    """A nonce is answered as often as somebody likes."""

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        if not any(o.key.sk.startswith("APPRAISAL#") for o in operations):
            return operations
        return [o for o in operations if not keys.is_challenge(o.key)]

    _transact(patch, change)


def shipped_unsealed_after_adoption(patch: Patch) -> None:
    """An agent that was started anew has no key, and ships what is there."""
    original = Attempt.sealed.fget  # type: ignore[attr-defined]

    def is_sealed(self: Attempt) -> bool:
        return bool(original(self)) and not (self.ending and self.key is None)

    patch.setattr(Attempt, "sealed", property(is_sealed))


def delivered_not_reset(patch: Patch) -> None:
    """What the runner of an attempt has proved is said of the next one, too."""
    original = lease._take

    def take(ctx: Context, want: Any, lessee: str, taken: set[str], job: Job) -> Any:
        step = original(ctx, want, lessee, taken, job)
        if step is None:
            return None
        return replace(step, job=replace(step.job, delivered=job.delivered, evidence=job.evidence))

    patch.setattr(lease, "_take", take)


def key_of_a_closed_job(patch: Patch) -> None:
    """A key is taken on the strength of what a read has shown, which may be old."""
    original = release_key.deposit

    class Trusting(_Deaf):
        def __init__(self, inner: JobStore) -> None:
            super().__init__(inner)
            self._shown: dict[keys.Key, Any] = {}

        def get(self, key: keys.Key, *, fresh: bool = False) -> Any:
            if key not in self._shown:
                self._shown[key] = self._inner.get(key, fresh=fresh)
            return self._shown[key] or self._inner.get(key, fresh=fresh)

        def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
            self._inner.transact([o for o in operations if not isinstance(o, Check)], sends)

    def deposit(ctx: Context, tenant: str, job_id: str, key: bytes) -> Any:
        return original(replace(ctx, store=Trusting(ctx.store)), tenant, job_id, key)

    patch.setattr(release_key, "deposit", deposit)


def log_sent_as_it_is(patch: Patch) -> None:
    """Of a sealed job the outputs alone are sealed."""
    patch.setattr(Carrier, "_whole_log", lambda self, handle: b"")
    patch.setattr(Attempt, "sealed", property(lambda self: self.key is not None and not self.ending))
    original = Carrier._hand_in

    def hand_in(self: Carrier, attempt: Any, collected: Any, *, more: bool = True) -> None:
        self._ship(attempt)
        original(self, attempt, collected, more=more)

    patch.setattr(Carrier, "_hand_in", hand_in)


MUTANTS: Final = (
    Mutant("a release without its fence", release_without_fence, ("sealed",), "was released when it was|has delivered"),
    Mutant("a second recipient overwrites", second_recipient_overwrites, ("sealed",), "written twice|have opened"),
    Mutant("a decision in another transaction", decision_in_another_transaction, ("sealed",), "was written down as"),
    Mutant("a challenge not consumed", challenge_not_consumed, ("sealed",), "used up the challenges"),
    Mutant(
        "shipped unsealed after adoption", shipped_unsealed_after_adoption, ("sealed",), "is not sealed|goes out as"
    ),
    Mutant("delivered not reset", delivered_not_reset, ("sealed",), "has delivered"),
    Mutant("the key of a closed job", key_of_a_closed_job, ("sealed",), "was taken when it was"),
    Mutant("a log sent as it is", log_sent_as_it_is, ("sealed",), "goes out as it is|was refused"),
)
