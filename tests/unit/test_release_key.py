"""The key broker: who gets the key of a job, once, and on what proof; every refusal, and that it is written down."""

from __future__ import annotations

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from hanzo_compute import config
from hanzo_compute.adapters.memory import ManualClock
from hanzo_compute.config import Policy, Pool
from hanzo_compute.errors import ComputeError, Conflict, NotFound, Rejected, StaleFence
from hanzo_compute.model import keys
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.ports import Lease
from hanzo_compute.security import envelope, hpke, tokens
from hanzo_compute.services import appraisals, lease, leaves, log, place, policies, records, release_key, submit
from hanzo_compute.services.appraisals import Keys
from hanzo_compute.services.lease import Claim
from hanzo_compute.wiring import Container
from hanzo_compute_agent.signing import Signer
from tests.support import statements
from tests.support.attested import EnrolledTpm
from tests.support.endorsed import EndorsedTpm
from tests.support.handlers import Client

KEY = bytes(range(32))
DIGEST = hashlib.sha256(KEY).hexdigest()
LESSEE = "platform"
SPEC: dict[str, Any] = {
    "source": {"code": "print(1)", "language": "python"},
    "privacy_tier": 1,
    "data_key": DIGEST,
    "input": {"inline": "sealed, say"},
}


@pytest.fixture(autouse=True)
def tiers(container: Container) -> None:
    object.__setattr__(container, "policy", Policy(pools=(Pool("local", frozenset({"wasm"}), tier=4),)))


@pytest.fixture
def tpm(container: Container) -> EnrolledTpm:
    made = EnrolledTpm()
    policies.put(container, "t1", "default", made.policy())
    return made


class Runner:
    """What an agent does for a key, step by step."""

    def __init__(self, container: Container, leased: Lease, name: str = "a1") -> None:
        self.ctx, self.lease = container, leased
        self.private, self.public = hpke.new_pair()
        self.signing = Signer(statements.VAULT, name).public_key
        self.claim = Claim(leased.job, leased.attempt, LESSEE)

    def challenge(self) -> dict[str, Any]:
        return appraisals.challenge(self.ctx, self.claim, Keys(self.signing, self.public))

    def present(self, tpm: EnrolledTpm, asked: dict[str, Any] | None = None) -> dict[str, Any]:
        asked = asked or self.challenge()
        self.evidence = tpm.collect(
            SimpleNamespace(nonce=bytes.fromhex(asked["nonce"]), signing_key=self.signing, sealing_key=self.public)
        )
        return appraisals.present(self.ctx, LESSEE, asked["id"], self.evidence)

    def key(self, tpm: EnrolledTpm) -> dict[str, Any]:
        return release_key.release(self.ctx, self.claim, self.present(tpm)["token"])

    def opened(self, answer: dict[str, Any]) -> bytes:
        sealed = base64.b64decode(answer["sealed"])
        return hpke.open_sealed(self.private, sealed, hpke.info(self.lease.job, self.lease.attempt))


def leased(container: Container, *, deposit: bool = True, name: str = "a1", **spec: Any) -> Lease:
    """A job of t1 that an agent holds."""
    job = submit.submit(container, "t1", parse_spec(SPEC | spec)).job
    if deposit:
        release_key.deposit(container, "t1", job.id, KEY)
    return again(container, job.id, name)


def again(container: Container, job: str, name: str = "a1") -> Lease:
    """The next attempt of a job, which an agent holds."""
    place.place(container, [job])
    (found,) = lease.acquire(container, statements.want(name), LESSEE)
    assert found.job == job
    return found


def decisions(container: Container, job: str) -> list[dict[str, Any]]:
    """What was decided of a job's key, as the leaves of the log say it; each is what its hash commits to."""
    rows = container.store.query(keys.attestation_partition(job), after=keys.LEAF, limit=100)
    found = [row.body for row in rows if row.key.sk.startswith(keys.LEAF)]
    for row in found:
        leaf = leaves.Leaf(bytes.fromhex(row["salt"]), row["body"])
        assert leaf.data.hex() == row["leaf"]
    return [row["body"] for row in found]


def test_the_runner_that_proves_itself_gets_the_key(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    answer = runner.key(tpm)
    assert runner.opened(answer) == KEY
    assert answer["tier"] == 1
    job = records.find(container, runner.lease.job, fresh=True)
    assert (job.delivered, job.evidence) == (1, answer["evidence"])
    held = lease.again(container, runner.claim)
    assert (held.delivered_tier, held.evidence) == (1, answer["evidence"])
    (decision,) = decisions(container, job.id)
    assert (decision["decision"], decision["by"], decision["reasons"]) == ("released", "broker", [])
    assert decision["recipient"] == runner.public.hex()
    waiting = log.sequence(container)
    assert waiting.appended == 1, "the decision has its place in the log"


def test_the_same_recipient_gets_the_same_bytes_again(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    first = runner.key(tpm)
    assert runner.key(tpm) == first
    assert len(decisions(container, runner.lease.job)) == 1


def test_another_recipient_of_the_attempt_is_refused(container: Container, tpm: EnrolledTpm) -> None:
    held = leased(container)
    Runner(container, held).key(tpm)
    with pytest.raises(Conflict, match="another recipient"):
        Runner(container, held).key(tpm)
    assert [each["reasons"] for each in decisions(container, held.job)] == [[], ["other_recipient"]]


def test_the_next_attempt_may_have_another_recipient(container: Container, tpm: EnrolledTpm) -> None:
    first = Runner(container, leased(container))
    sealed = first.key(tpm)["sealed"]
    lease.release(container, first.claim, "drain")
    second = Runner(container, again(container, first.lease.job))
    assert records.find(container, first.lease.job, fresh=True).evidence is None
    answer = second.key(tpm)
    assert second.opened(answer) == KEY
    assert answer["sealed"] != sealed
    with pytest.raises(StaleFence):
        first.key(tpm)
    with pytest.raises(ComputeError, match="does not open"):
        hpke.open_sealed(second.private, base64.b64decode(answer["sealed"]), hpke.info(first.lease.job, 1))


def test_of_200_recipients_at_once_exactly_one_gets_it(container: Container, tpm: EnrolledTpm) -> None:
    held = leased(container)
    runners = [Runner(container, held) for _ in range(200)]
    results = [runner.present(tpm)["token"] for runner in runners]

    def ask(number: int) -> Any:
        try:
            return release_key.release(container, runners[number].claim, results[number])
        except ComputeError as error:
            return error

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(200)))
    won = [number for number, each in enumerate(answers) if isinstance(each, dict)]
    assert len(won) == 1
    assert runners[won[0]].opened(answers[won[0]]) == KEY
    assert all(type(each) is Conflict for number, each in enumerate(answers) if number not in won)
    assert ask(won[0]) == answers[won[0]]


def test_a_nonce_is_good_once(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    asked = runner.challenge()
    runner.present(tpm, asked)
    with pytest.raises(Rejected, match="challenge"):
        appraisals.present(container, LESSEE, asked["id"], runner.evidence)
    with pytest.raises(Rejected, match="challenge"):
        runner.present(tpm, asked)


def test_a_nonce_is_good_for_two_minutes(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    asked = runner.challenge()
    clock = container.clock
    assert isinstance(clock, ManualClock)
    for _ in range(13):
        clock.sleep(9.5)
        lease.heartbeat(container, runner.claim)
    with pytest.raises(Rejected, match="challenge"):
        runner.present(tpm, asked)


def test_a_nonce_is_of_one_runner(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    asked = runner.challenge()
    with pytest.raises(Rejected, match="challenge"):
        appraisals.present(container, "somebody", asked["id"], tpm.answer(bytes.fromhex(asked["nonce"])))
    assert runner.present(tpm, asked)["result"]["verdict"] == "accept"


def test_evidence_of_another_challenge_is_refused(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    runner.present(tpm)
    asked = runner.challenge()
    presented = appraisals.present(container, LESSEE, asked["id"], runner.evidence)
    assert presented["result"]["reasons"] == ["tpm.binding"]
    with pytest.raises(Rejected) as refused:
        release_key.release(container, runner.claim, presented["token"])
    assert refused.value.data["reasons"] == ["not_accepted", "tier_too_low", "tpm.binding"]


@pytest.mark.parametrize("key", ["signing", "public"])
def test_evidence_for_other_keys_is_refused(container: Container, tpm: EnrolledTpm, key: str) -> None:
    """Somebody in between takes a runner's evidence, and asks with keys of its own."""
    held = leased(container)
    thief, honest = Runner(container, held), Runner(container, held)
    asked = thief.challenge()
    honest.signing = thief.signing if key == "public" else Signer(statements.VAULT, "a2").public_key
    presented = honest.present(tpm, asked)
    assert presented["result"]["reasons"] == ["tpm.binding"]


def test_the_signing_key_is_that_of_the_lease(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container), name="a2")
    with pytest.raises(ComputeError, match="signing_key"):
        runner.challenge()


def test_a_result_is_of_one_job_and_attempt(container: Container, tpm: EnrolledTpm) -> None:
    one, two = Runner(container, leased(container)), Runner(container, leased(container))
    token = one.present(tpm)["token"]
    with pytest.raises(Rejected) as refused:
        release_key.release(container, two.claim, token)
    assert refused.value.data["reasons"] == ["other_job"]
    lease.release(container, one.claim, "drain")
    later = Runner(container, again(container, one.lease.job))
    with pytest.raises(Rejected) as refused:
        release_key.release(container, later.claim, token)
    assert refused.value.data["reasons"] == ["other_attempt"]


def test_a_result_is_good_for_ten_minutes(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    token = runner.present(tpm)["token"]
    clock = container.clock
    assert isinstance(clock, ManualClock)
    for _ in range(61):
        clock.sleep(9.9)
        lease.heartbeat(container, runner.claim)
    with pytest.raises(Rejected, match="expired"):
        release_key.release(container, runner.claim, token)
    assert decisions(container, runner.lease.job)[0]["reasons"] == ["attestation_result"]


def test_a_result_of_an_earlier_policy_is_refused(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    token = runner.present(tpm)["token"]
    policies.put(container, "t1", "default", tpm.policy("ab" * 32))
    with pytest.raises(Rejected) as refused:
        release_key.release(container, runner.claim, token)
    assert refused.value.data["reasons"] == ["policy_changed"]
    assert runner.opened(runner.key(tpm)) == KEY


def test_a_tenant_without_a_policy_releases_nothing(container: Container) -> None:
    tpm = EnrolledTpm()
    policies.put(container, "t2", "default", tpm.policy())
    runner = Runner(container, leased(container))
    with pytest.raises(Rejected) as refused:
        runner.key(tpm)
    assert "not_accepted" in refused.value.data["reasons"]
    assert decisions(container, runner.lease.job)[0]["policy"] == "production@1"


def test_a_policy_for_looking_releases_nothing(container: Container, tpm: EnrolledTpm) -> None:
    text = json.loads(tpm.policy()) | {"release_keys": False}
    policies.put(container, "t1", "default", json.dumps(text))
    runner = Runner(container, leased(container))
    with pytest.raises(Rejected) as refused:
        runner.key(tpm)
    assert refused.value.data["reasons"] == ["policy_releases_no_keys"]


def test_what_was_measured_must_be_known(container: Container, tpm: EnrolledTpm) -> None:
    tpm.pcrs["4"] = "ab" * 32
    runner = Runner(container, leased(container))
    with pytest.raises(Rejected) as refused:
        runner.key(tpm)
    assert set(refused.value.data["reasons"]) >= {"not_accepted", "tier_too_low"}
    (decision,) = decisions(container, runner.lease.job)
    assert decision["decision"] == "refused"
    assert decision["reasons"] == refused.value.data["reasons"]


def test_a_tier_above_the_proof_is_refused(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container, deposit=False, privacy_tier=2))
    with pytest.raises(Rejected) as refused:
        runner.key(tpm)
    assert refused.value.data["reasons"] == ["tier_too_low"]


@pytest.mark.parametrize("tier", [2, 3, 4])
def test_the_broker_takes_no_key_of_a_higher_tier(container: Container, tpm: EnrolledTpm, tier: int) -> None:
    job = submit.submit(container, "t1", parse_spec(SPEC | {"privacy_tier": tier})).job
    with pytest.raises(Rejected, match="not attested"):
        release_key.deposit(container, "t1", job.id, KEY)
    assert container.store.get(keys.data_key(job.id), fresh=True) is None


def test_the_key_may_come_later(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container, deposit=False))
    with pytest.raises(NotFound) as pending:
        runner.key(tpm)
    assert pending.value.data["name"] == "key_pending"
    release_key.deposit(container, "t1", runner.lease.job, KEY)
    assert runner.opened(runner.key(tpm)) == KEY


def test_what_is_deposited_is_the_key_of_the_job(container: Container, tpm: EnrolledTpm) -> None:
    held = leased(container)
    for wrong in (bytes(32), KEY[:31], b""):
        with pytest.raises(ComputeError, match="data_key"):
            release_key.deposit(container, "t1", held.job, wrong)
    assert release_key.deposit(container, "t1", held.job, KEY) == {"job": held.job, "data_key": DIGEST}
    with pytest.raises(NotFound):
        release_key.deposit(container, "t2", held.job, KEY)
    stored = json.dumps(container.store.get(keys.data_key(held.job), fresh=True).body)  # type: ignore[union-attr]
    assert base64.b64encode(KEY).decode() not in stored
    assert KEY.hex() not in stored


def test_the_key_goes_with_the_job(container: Container, tpm: EnrolledTpm) -> None:
    from hanzo_compute.services import cancel, complete

    job = submit.submit(container, "t1", parse_spec(SPEC)).job
    release_key.deposit(container, "t1", job.id, KEY)
    cancel.cancel(container, "t1", job.id)
    complete.close(container, [job.id])
    assert container.store.get(keys.data_key(job.id), fresh=True) is None
    with pytest.raises(Conflict, match="ended"):
        release_key.deposit(container, "t1", job.id, KEY)


def test_no_key_is_taken_of_a_job_that_ends_meanwhile(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stay: the one who removes keys with their jobs has been here."""
    from hanzo_compute.services import cancel, complete

    job = submit.submit(container, "t1", parse_spec(SPEC)).job
    sealing = envelope.seal

    def seal(*given: Any) -> Any:
        cancel.cancel(container, "t1", job.id)
        complete.close(container, [job.id])
        return sealing(*given)

    monkeypatch.setattr(envelope, "seal", seal)
    with pytest.raises(Conflict, match="ended"):
        release_key.deposit(container, "t1", job.id, KEY)
    assert container.store.get(keys.data_key(job.id), fresh=True) is None


def test_a_key_is_taken_of_a_job_that_moves_meanwhile(container: Container) -> None:
    """Whatever it does between the look at it and the write, as long as it has not ended."""
    job = submit.submit(container, "t1", parse_spec(SPEC)).job
    moves = [lambda: again(container, job.id), lambda: None]

    class Moving:
        def __getattr__(self, name: str) -> Any:
            return getattr(container.store, name)

        def transact(self, *given: Any) -> None:
            if moves:
                moves.pop(0)()
            container.store.transact(*given)

    release_key.deposit(replace(container, store=Moving()), "t1", job.id, KEY)
    assert not moves, "it was written at the second try"
    assert container.store.get(keys.data_key(job.id), fresh=True) is not None


def test_each_epoch_opens_what_it_sealed(container: Container, tpm: EnrolledTpm) -> None:
    runner = Runner(container, leased(container))
    later = Policy(pools=container.policy.pools, key_epoch=2)
    object.__setattr__(container, "policy", later)
    assert runner.opened(runner.key(tpm)) == KEY
    second = leased(container)
    assert container.store.get(keys.data_key(second.job), fresh=True).body["epoch"] == 2  # type: ignore[union-attr]
    assert config.Policy().key_epoch == 1


def test_the_requester_seals_the_key_itself(container: Container, tpm: EnrolledTpm) -> None:
    """As from tier 2 on; here of tier 1, which this evidence proves."""
    runner = Runner(container, leased(container, deposit=False))
    token = runner.present(tpm)["token"]
    held, info = runner.lease, hpke.info(runner.lease.job, runner.lease.attempt)
    sealed = hpke.seal(runner.public, KEY, info)
    answer = release_key.entrust(container, "t1", held.job, held.attempt, runner.public, sealed)
    assert runner.opened(answer) == KEY
    assert release_key.release(container, runner.claim, token) == answer
    assert decisions(container, held.job)[-1]["by"] == "requester"
    other = hpke.new_pair()[1]
    with pytest.raises(Rejected) as refused:
        release_key.entrust(container, "t1", held.job, held.attempt, other, hpke.seal(other, KEY, info))
    assert refused.value.data["reasons"] == ["not_attested"]
    with pytest.raises(StaleFence):
        release_key.entrust(container, "t1", held.job, held.attempt + 1, runner.public, sealed)
    with pytest.raises(NotFound):
        release_key.entrust(container, "t2", held.job, held.attempt, runner.public, sealed)


def test_results_of_others_are_none(container: Container, tpm: EnrolledTpm) -> None:
    from hanzo_compute.adapters.memory import MemoryVault

    runner = Runner(container, leased(container))
    token = runner.present(tpm)["token"]
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    foreign = MemoryVault(Random(9))
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    raised = base64.urlsafe_b64encode(json.dumps(claims | {"tier": 4}).encode()).decode().rstrip("=")
    flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    for wrong in (
        tokens.issue(foreign, claims),
        f"{unsigned}.{body}.",
        f"{head}.{raised}.{signature}",
        f"{head}.{body}.{flipped}",
        f"{head}.{body}",
        "",
        "a.b.c",
        token + "x" * 9000,
    ):
        with pytest.raises(Rejected) as refused:
            release_key.release(container, runner.claim, wrong)
        assert refused.value.data["reasons"] == ["attestation_result"]
    assert runner.opened(release_key.release(container, runner.claim, token)) == KEY


def test_an_appraisal_can_be_made_again(container: Container, tpm: EnrolledTpm) -> None:
    from hanzo_compute.attestation import Binding, appraise, policy
    from hanzo_compute.model.evidence import Evidence, Platform

    runner = Runner(container, leased(container))
    presented = runner.present(tpm)
    (shown,) = appraisals.shown(container, "t1", runner.lease.job)
    assert (shown["verdict"], shown["tier"], shown["policy"]) == ("accept", 1, "default@1")
    bundle = json.loads(container.blobs.get("t1", shown["bundle"]))
    evidence = [
        Evidence(Platform(each["platform"]), {n: base64.b64decode(d) for n, d in each["files"].items()})
        for each in bundle["evidence"]
    ]
    bound = bundle["binding"]
    binding = Binding(
        bytes.fromhex(bound["nonce"]), base64.b64decode(bound["signing_key"]), bytes.fromhex(bound["sealing_key"])
    )
    again = appraise(evidence, policy.from_document(bundle["policy"]), {}, bundle["now_ms"], binding=binding)
    assert again.as_json() == presented["result"]
    with pytest.raises(NotFound):
        appraisals.shown(container, "t2", runner.lease.job)


def test_an_appraisal_by_a_credential_can_be_made_again(container: Container) -> None:
    """That the credential was opened is stored with what it was made of."""
    from hanzo_compute.attestation import Binding, appraise, policy
    from hanzo_compute.model.evidence import Evidence, Platform

    tpm = EndorsedTpm()
    policies.put(container, "t1", "default", tpm.policy(EnrolledTpm()))
    source = SimpleNamespace(fetch=lambda evidence, now_ms: tpm.collateral())
    object.__setattr__(container, "collateral", source)
    runner = Runner(container, leased(container))
    asked = runner.challenge()
    bound = Binding(bytes.fromhex(asked["nonce"]), runner.signing, runner.public)
    evidence = tpm.collect(bound)
    files = evidence[0].files
    made = appraisals.activation(container, LESSEE, asked["id"], files["ek_tpm2b"], files["ak_tpm2b"])
    secret = tpm.activate(base64.b64decode(made["credential"]))
    presented = appraisals.present(container, LESSEE, asked["id"], evidence, secret)
    assert presented["result"]["verdict"] == "accept", presented["result"]["reasons"]
    assert runner.opened(release_key.release(container, runner.claim, presented["token"])) == KEY
    bundle = json.loads(container.blobs.get("t1", appraisals.shown(container, "t1", runner.lease.job)[0]["bundle"]))
    given = [
        {Platform(each["platform"]): {n: base64.b64decode(d) for n, d in each["files"].items()}}
        for each in bundle["evidence"]
    ]
    pieces = [Evidence(platform, each[platform]) for each in given for platform in each]
    collateral = {
        Platform(name): {n: base64.b64decode(d) for n, d in each.items()} for name, each in bundle["collateral"].items()
    }
    activated = [(bytes.fromhex(ek), bytes.fromhex(ak)) for ek, ak in bundle["activated"]]
    document = policy.from_document(bundle["policy"])
    again_ = appraise(pieces, document, collateral, bundle["now_ms"], binding=bound, activated=activated)
    assert again_.as_json() == presented["result"]


def test_over_http(container: Container, call: Client, other: Client, agent: Client) -> None:
    tpm = EnrolledTpm()
    put = call("PUT", "/v1/attestation/policies/default", {"policy": tpm.policy()})
    assert (put.status, put.body["version"]) == (200, 1)
    assert call("GET", "/v1/attestation/policies").body["items"][0]["name"] == "default"
    assert call("GET", "/v1/attestation/policies/default").body["policy"]["release_keys"] is True
    assert call("GET", "/v1/attestation/policies/production").body["version"] == 1
    assert other("GET", "/v1/attestation/policies/default").status == 404
    assert call("PUT", "/v1/attestation/policies/baseline", {"policy": tpm.policy()}).status == 400
    for text in ("a: [b", "", "just text"):
        refused = call("PUT", "/v1/attestation/policies/x", {"policy": text})
        assert (refused.status, refused.body["errors"][0]["field"]) == (400, "policy")
    job = call("POST", "/v1/jobs", SPEC).body["id"]
    gave = call("PUT", f"/v1/jobs/{job}/key", {"key_base64": base64.b64encode(KEY).decode()})
    assert gave.status == 200, gave.body
    assert KEY.hex() not in json.dumps(gave.body)
    runner = Runner(container, again(container, job))
    text = {name: base64.b64encode(getattr(runner, name)).decode() for name in ("signing", "public")}
    body = {"job": job, "attempt": 1, "signing_key": text["signing"], "sealing_key": text["public"]}
    assert call("POST", "/v1/attestation/challenges", body).status == 403
    asked = agent("POST", "/v1/attestation/challenges", body)
    assert asked.status == 201
    (evidence,) = tpm.collect(
        SimpleNamespace(nonce=bytes.fromhex(asked.body["nonce"]), signing_key=runner.signing, sealing_key=runner.public)
    )
    piece = {"platform": "tpm", "files": {n: base64.b64encode(d).decode() for n, d in evidence.files.items()}}
    presented = agent("POST", "/v1/attestation/appraisals", {"challenge": asked.body["id"], "evidence": [piece]})
    assert presented.body["result"]["verdict"] == "accept", presented.body
    key = agent("POST", f"/v1/jobs/{job}/key", {"attempt": 1, "token": presented.body["token"]})
    assert runner.opened(key.body) == KEY
    assert other("GET", f"/v1/jobs/{job}/attestations").status == 404
    assert call("GET", f"/v1/jobs/{job}/attestations").body["items"][0]["verdict"] == "accept"
    (jwk,) = call("GET", "/v1/attestation/keys").body["keys"]
    assert (jwk["alg"], jwk["crv"]) == ("ES256", "P-256")
    for wrong in (
        {"attempt": 1},
        {"attempt": 0, "token": "x"},
        {"attempt": 1, "token": "x" * 9000},
    ):
        assert agent("POST", f"/v1/jobs/{job}/key", wrong).status == 400
    for wrong_key in ({}, {"key_base64": "!"}, {"attempt": 1, "sealed": "AA=="}, {"key_base64": "AA==", "attempt": 1}):
        assert call("PUT", f"/v1/jobs/{job}/key", wrong_key).status == 400
