"""An agent asks for the key of a sealed job: with evidence, as long as it takes, and for nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from hanzo_compute.adapters.memory import ManualClock
from hanzo_compute.errors import ComputeError, InternalError, NoCapacity, NotFound, Rejected, Unavailable
from hanzo_compute.model.evidence import Evidence
from hanzo_compute.ports import Asked, KeyAnswer, Lease, Presented
from hanzo_compute.security import hpke
from hanzo_compute_agent.confidential import Confidential
from tests.support.attested import EnrolledTpm

KEY = bytes(range(32))
NONCE = b"n" * 32


class Broker:
    """Answers as it is told to; ``asked`` is what was asked of it."""

    def __init__(self, *, verdicts: Sequence[str] = ("accept",), errors: Sequence[ComputeError] = ()) -> None:
        self.verdicts, self.errors = list(verdicts), list(errors)
        self.asked: list[str] = []
        self.key_given = KEY
        self.recipient = b""
        self.evidence: Sequence[Evidence] = ()

    def challenge(self, job: str, attempt: int, signing_key: bytes, sealing_key: bytes) -> Asked:
        self.asked.append("challenge")
        self.recipient = sealing_key
        return Asked("ac-1", NONCE)

    def credential(self, challenge: str, ek: bytes, ak: bytes) -> bytes:
        self.asked.append("credential")
        return b"credential for " + ek + ak

    def present(self, challenge: str, evidence: Sequence[Evidence], activated: bytes | None = None) -> Presented:
        self.asked.append(f"present {activated!r}" if activated else "present")
        self.evidence = evidence
        verdict = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        return Presented(f"token of {verdict}", verdict)

    def key(self, job: str, attempt: int, token: str) -> KeyAnswer:
        self.asked.append(f"key by {token}")
        if self.errors:
            raise self.errors.pop(0)
        return KeyAnswer(hpke.seal(self.recipient, self.key_given, hpke.info(job, attempt)), 1, "ab" * 32)


def lease(**spec: Any) -> Lease:
    body = {"data_key": hashlib.sha256(KEY).hexdigest(), **spec}
    return Lease("j-1", 2, "wasm", body, 15_000, 60_000, timeout_is_deadline=False)


def of(broker: Broker, attester: Any = None) -> Confidential:
    return Confidential(broker, attester or EnrolledTpm(), ManualClock(), lambda: b"signing key")


def pending() -> NotFound:
    return NotFound("not there yet", name="key_pending")


def test_it_gets_the_key() -> None:
    broker = Broker()
    found = of(broker).obtain(lease(), lambda: True)
    assert (found.key, found.tier, found.evidence) == (KEY, 1, "ab" * 32)
    assert KEY.hex() not in repr(found)
    assert broker.asked == ["challenge", "present", "key by token of accept"]


def test_it_waits_for_the_requester() -> None:
    broker = Broker(errors=[pending(), Unavailable("busy"), pending()])
    assert of(broker).obtain(lease(), lambda: True).key == KEY
    assert broker.asked.count("key by token of accept") == 4


def test_it_does_not_wait_for_ever() -> None:
    confidential = of(Broker(errors=[pending()] * 1000))
    with pytest.raises(NotFound):
        confidential.obtain(lease(), lambda: True)
    assert confidential.clock.monotonic() < 200


def test_it_stops_when_the_attempt_does() -> None:
    left = [True, True, False]
    with pytest.raises(Unavailable, match="attempt is over"):
        of(Broker(errors=[pending()] * 1000)).obtain(lease(), lambda: left.pop(0) if len(left) > 1 else left[0])


def test_evidence_is_presented_again_while_collateral_is_missing() -> None:
    broker = Broker(verdicts=["unavailable", "unavailable", "accept"])
    assert of(broker).obtain(lease(), lambda: True).key == KEY
    assert broker.asked == ["challenge", "present"] * 3 + ["key by token of accept"]


def test_a_lost_answer_costs_a_nonce_and_not_the_attempt() -> None:
    class Lossy(Broker):
        lost = 2

        def present(self, challenge: str, evidence: Sequence[Evidence], activated: bytes | None = None) -> Presented:
            answer = super().present(challenge, evidence, activated)
            if self.lost:
                self.lost -= 1
                raise Unavailable("no answer came")
            return answer

    broker = Lossy()
    assert of(broker).obtain(lease(), lambda: True).key == KEY
    assert broker.asked == ["challenge", "present"] * 3 + ["key by token of accept"]
    broker.lost = 1000
    with pytest.raises(Unavailable):
        of(broker).obtain(lease(), lambda: True)
    with pytest.raises(Unavailable):
        of(broker).obtain(lease(), lambda: False)


def test_a_refusal_is_final() -> None:
    broker = Broker(verdicts=["reject"], errors=[Rejected("no")])
    with pytest.raises(Rejected):
        of(broker).obtain(lease(), lambda: True)
    assert broker.asked == ["challenge", "present", "key by token of reject"]


def test_another_key_than_the_specs_is_refused() -> None:
    broker = Broker()
    broker.key_given = bytes(32)
    with pytest.raises(InternalError, match="not the one"):
        of(broker).obtain(lease(), lambda: True)


def test_without_an_attester_it_says_so() -> None:
    with pytest.raises(NoCapacity, match="no evidence"):
        Confidential(Broker(), None, ManualClock(), lambda: b"").obtain(lease(), lambda: True)


def test_a_tpm_key_without_certificate_is_activated() -> None:
    class Endorsed(EnrolledTpm):
        def quote(self, qualifying: bytes) -> Evidence:
            made = super().quote(qualifying)
            return Evidence(made.platform, {**made.files, "ek_tpm2b": b"E", "ak_tpm2b": b"A", **self.more})

        more: dict[str, bytes] = {}  # noqa: RUF012

        def activate(self, credential: bytes) -> bytes:
            return b"secret of " + credential

    broker, tpm = Broker(), Endorsed()
    of(broker, tpm).obtain(lease(), lambda: True)
    assert broker.asked[1:3] == ["credential", "present b'secret of credential for EA'"]
    tpm.more = {"ak_cert": b"C"}
    broker = Broker()
    of(broker, tpm).obtain(lease(), lambda: True)
    assert broker.asked[1] == "present"
