"""The key of a job whose input and outputs are sealed: asked for with evidence, and never written down.

For each attempt a key pair of its own is made; the evidence commits to it, and what is sealed to it opens in this
process alone. An agent that ends loses the key, and the platform makes a new attempt, with evidence of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hanzo_compute.attestation.binding import Binding
from hanzo_compute.errors import ComputeError, InternalError, NoCapacity, NotFound, Unavailable
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports import Attester, Clock, KeyAnswer, KeyApi, Lease, Presented
from hanzo_compute.security import hpke

WAIT_S: Final = 120.0
"""How long an agent waits for the requester to give the key."""
COLLATERAL_S: Final = 5.0
"""It presents evidence again after this long while the platform fetches what it needs to judge it."""
POLL_S: Final = 0.5
"""It asks this often."""


@dataclass(frozen=True, slots=True)
class JobKey:
    """A job's data key, and what was proved for it."""

    key: bytes = field(repr=False)
    tier: int
    evidence: str


@dataclass(frozen=True)
class Confidential:
    """Asks for keys; ``attester`` is None where nothing is known of this machine's hardware."""

    api: KeyApi
    attester: Attester | None
    clock: Clock
    signing_key: Callable[[], bytes]
    """The agent's public key (SubjectPublicKeyInfo in DER), with which it leased."""

    def obtain(self, lease: Lease, going: Callable[[], bool]) -> JobKey:
        """The key of a leased job; asks as long as ``going`` holds.

        Raises:
            NoCapacity: this agent has no evidence to show.
            Rejected: the evidence does not suffice, or the key went to another.
            Unavailable: the requester did not give the key in time, or this agent is to stop.
            InternalError: what came is not the key that the spec names.
        """
        if self.attester is None:
            raise NoCapacity("this agent has no evidence to show: there is neither a TEE nor a TPM here")
        private, public = hpke.new_pair()
        answer = self._asked(lease, self._proved(self.attester, lease, public, going), going)
        key = hpke.open_sealed(private, answer.sealed, hpke.info(lease.job, lease.attempt))
        if hashlib.sha256(key).hexdigest() != lease.spec["data_key"]:
            raise InternalError("the key that came is not the one that the job's spec names")
        return JobKey(key, answer.tier, answer.evidence)

    def _proved(self, attester: Attester, lease: Lease, public: bytes, going: Callable[[], bool]) -> str:
        """The attestation result. As long as the platform lacks collateral, and when an answer was lost and with it
        perhaps the nonce, evidence is presented anew."""
        end = self.clock.monotonic() + WAIT_S
        while True:
            wait = COLLATERAL_S
            try:
                found = self._presented(attester, lease, public)
                if found.verdict != "unavailable" or not going() or self.clock.monotonic() > end:
                    return found.token
            except ComputeError as error:
                if not error.retryable or not going() or self.clock.monotonic() > end:
                    raise
                wait = POLL_S
            self.clock.sleep(wait)

    def _presented(self, attester: Attester, lease: Lease, public: bytes) -> Presented:
        signing = self.signing_key()
        asked = self.api.challenge(lease.job, lease.attempt, signing, public)
        evidence = attester.collect(Binding(asked.nonce, signing, public))
        return self.api.present(asked.id, evidence, self._activated(attester, asked.id, evidence))

    def _activated(self, attester: Attester, challenge: str, evidence: Sequence[Evidence]) -> bytes | None:
        """What shows that a TPM's attestation key is its own, if no certificate and no TEE does."""
        for each in evidence:
            files = each.files
            plain = "ak_cert" not in files and "hcl_report" not in files
            if each.platform is Platform.TPM and plain and {"ek_tpm2b", "ak_tpm2b"} <= files.keys():
                return attester.activate(self.api.credential(challenge, files["ek_tpm2b"], files["ak_tpm2b"]))
        return None

    def _asked(self, lease: Lease, token: str, going: Callable[[], bool]) -> KeyAnswer:
        end = self.clock.monotonic() + WAIT_S
        while going():
            try:
                return self.api.key(lease.job, lease.attempt, token)
            except NotFound as error:
                if error.data.get("name") != "key_pending" or self.clock.monotonic() > end:
                    raise
            except ComputeError as error:
                if not error.retryable or self.clock.monotonic() > end:
                    raise
            self.clock.sleep(POLL_S)
        raise Unavailable("it was not asked for to the end: the attempt is over, or the agent stops")
