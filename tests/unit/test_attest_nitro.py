"""What a genuine attestation document shows, and what policies ask of it."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from hanzo_compute.attestation import AttestationResult, Binding, Policy, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import Tier
from tests.support import mint_nitro as mint
from tests.support import pki

ENCLAVE = mint.enclave()
IMAGE = mint.PCRS[0].hex()
BINDING = Binding(nonce=bytes(range(32)), signing_key=b"spki", sealing_key=b"s" * 32)
BOUND: dict[str, Any] = {
    "nonce": BINDING.nonce,
    "user_data": BINDING.report_data(),
    "public_key": BINDING.sealing_key,
}


def judge(document: bytes, policy: Policy | None = None, **given: Any) -> AttestationResult:
    given = {"anchors": [ENCLAVE.root], "now_ms": pki.NOW_MS} | given
    return appraise(mint.evidence(document), policy or builtin("baseline"), {}, **given)


def strict(**section: Any) -> Policy:
    return from_document({"name": "strict", "version": 1, "nitro": section})


def looking(**section: Any) -> Policy:
    require = {"freshness": False, "binding": False, "measurement": False}
    return from_document({"name": "looking", "version": 1, "require": require, "nitro": section})


def state(result: AttestationResult, name: str) -> bool | None:
    return next(check.ok for check in result.checks if check.id == name)


def test_a_genuine_document_is_accepted_and_read() -> None:
    result = judge(ENCLAVE.document(user_data=b"data", nonce=b"", public_key=b"key"))
    assert (result.verdict, result.authentic, result.tier, result.reasons) == ("accept", True, Tier.CPU_TEE, ())
    claims = result.claims["nitro"]
    assert claims["module_id"] == "i-0123456789abcdef0-enc0123456789abcdef"
    assert (claims["timestamp_ms"], claims["time"]) == (pki.NOW_MS, "2026-01-01 00:00:00+00:00")
    assert claims["pcrs"] == {str(index): mint.PCRS[index].hex() for index in range(5)}
    assert (claims["n_pcrs"], claims["debug"], claims["digest"]) == (16, False, "SHA384")
    assert (claims["user_data"], claims["nonce"], claims["public_key"]) == (b"data".hex(), "", b"key".hex())
    assert [len(each) for each in (*claims["cabundle"], claims["certificate"])] == [64] * 5


def test_an_authority_that_nobody_handed_in_is_none() -> None:
    result = judge(ENCLAVE.document(), anchors=[])
    assert (result.verdict, result.authentic, result.reasons) == ("reject", False, ("nitro.chain.root",))


def test_an_anchor_that_is_no_certificate_is_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="anchor"):
        judge(ENCLAVE.document(), anchors=[b"-----BEGIN CERTIFICATE-----"])


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"\xd2" + ENCLAVE.document(), id="tagged"),
        pytest.param(ENCLAVE.document(public_key=..., user_data=..., nonce=...), id="without the optional fields"),
        pytest.param(ENCLAVE.sign(mint.pairs(ENCLAVE.fields().items())), id="indefinite payload"),
        pytest.param(ENCLAVE.document(pcrs={**mint.PCRS, 16: bytes(48)}), id="a register more"),
        pytest.param(ENCLAVE.document(pcrs={0: b"p" * 32, 31: b"q" * 64}), id="registers of other sizes"),
        pytest.param(ENCLAVE.document(user_data=bytes(1024), nonce=bytes(1024), public_key=bytes(1024)), id="large"),
        pytest.param(b"\x9f" + ENCLAVE.document()[1:] + b"\xff", id="indefinite envelope"),
    ],
)
def test_forms_that_the_specification_allows_are_accepted(document: bytes) -> None:
    assert judge(document).reasons == ()


def test_an_optional_field_that_is_null_is_as_one_that_is_not_there() -> None:
    for document in (ENCLAVE.document(), ENCLAVE.document(nonce=..., user_data=...)):
        result = judge(document, nonce=b"")
        assert result.reasons == ("nitro.nonce",)
        assert result.claims["nitro"]["user_data"] == ""


def test_reference_values_are_compared_register_by_register() -> None:
    document = ENCLAVE.document()
    other = "ab" * 48
    assert judge(document, looking(pcrs={0: [other, IMAGE.upper()]})).reasons == ()
    wrong = judge(document, looking(pcrs={0: [IMAGE], 4: [other]}))
    assert wrong.reasons == ("nitro.pcr4", "nitro.measurement")
    assert wrong.authentic
    missing = judge(ENCLAVE.document(pcrs={0: mint.PCRS[0]}), looking(pcrs={0: [IMAGE], 8: [other]}))
    assert missing.reasons == ("nitro.pcr8", "nitro.measurement")


@pytest.mark.parametrize("registers", [{}, {3: 3}, {1: 1}, {2: 2}])
def test_registers_that_do_not_tell_what_runs_are_no_measurement(registers: dict[int, int]) -> None:
    references = {index: [mint.PCRS[index].hex()] for index in registers}
    assert state(judge(ENCLAVE.document(), looking(pcrs=references)), "nitro.measurement") is None
    result = judge(ENCLAVE.document(**BOUND), strict(pcrs=references), binding=BINDING)
    assert result.reasons == ("nitro.measurement",)


@pytest.mark.parametrize("indexes", [(0,), (8,), (1, 2), (0, 4)])
def test_registers_that_tell_what_runs_are(indexes: tuple[int, ...]) -> None:
    pcrs = {**mint.PCRS, 8: b"8" * 48}
    references = {index: [pcrs[index].hex()] for index in indexes}
    result = judge(ENCLAVE.document(pcrs=pcrs, **BOUND), strict(pcrs=references), binding=BINDING)
    assert (result.reasons, result.tier) == ((), Tier.CPU_TEE)


def test_the_strict_default_asks_for_nonce_keys_and_measurement() -> None:
    result = judge(ENCLAVE.document(), strict())
    assert result.reasons == ("nitro.measurement", "nitro.nonce", "nitro.binding")
    no_root = judge(ENCLAVE.document(), builtin("production")).reasons
    assert no_root == ("nitro.chain.root", *result.reasons)


def test_a_nonce_is_compared_with_its_field() -> None:
    assert judge(ENCLAVE.document(nonce=b"n" * 32), nonce=b"n" * 32).reasons == ()
    assert judge(ENCLAVE.document(nonce=b"n" * 32)).reasons == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"user_data": bytes(64)}, "nitro.binding"),
        ({"user_data": None}, "nitro.binding"),
        ({"nonce": bytes(32)}, "nitro.nonce"),
        ({"nonce": None}, "nitro.nonce"),
        ({"public_key": b"k" * 32}, "nitro.public_key"),
        ({"public_key": b""}, "nitro.public_key"),
    ],
)
def test_every_part_of_a_binding_is_held(change: dict[str, Any], code: str) -> None:
    result = judge(ENCLAVE.document(**{**BOUND, **change}), binding=BINDING)
    assert (result.reasons, result.authentic) == ((code,), True)


def test_the_field_for_a_public_key_may_stay_empty() -> None:
    result = judge(ENCLAVE.document(**{**BOUND, "public_key": None}), binding=BINDING)
    assert result.reasons == ()
    assert state(result, "nitro.public_key") is None


def test_the_window_of_the_timestamp_is_the_policys() -> None:
    document = ENCLAVE.document(timestamp=pki.NOW_MS - 60_001)
    assert judge(document, looking(max_age_s=60)).reasons == ("nitro.timestamp",)
    assert judge(document, looking(max_age_s=61)).reasons == ()
    document = ENCLAVE.document(timestamp=pki.NOW_MS + 1)
    assert judge(document, looking(future_skew_s=0)).reasons == ("nitro.timestamp",)
    assert judge(document, looking(future_skew_s=1)).reasons == ()


def test_nothing_of_a_verdict_is_remembered() -> None:
    document = ENCLAVE.document()
    assert judge(document).verdict == "accept"
    later = judge(document, looking(max_age_s=86_400), now_ms=pki.NOW_MS + 2 * 3_600_000)
    assert later.reasons == ("nitro.chain.validity",)
    assert judge(document, anchors=[]).reasons == ("nitro.chain.root",)


def test_the_rest_of_a_container_may_follow_if_it_is_of_this_document() -> None:
    document = ENCLAVE.document(user_data=b"u" * 64)
    whole = mint.container(document, {"app-id": b"a" * 20}, b"u" * 64, '{"os_image_hash":"' + "0" * 64 + '"}')
    assert judge(whole).reasons == ()
    for changed in (
        mint.container(document, {}, b"v" * 64, "{}"),
        mint.container(ENCLAVE.document(), {}, b"u" * 64, "{}"),
        whole[:-1],
        whole + b"\0",
        document + whole[-1:],
    ):
        result = judge(changed)
        assert (result.reasons, result.authentic) == (("nitro.trailing",), False)


@pytest.mark.parametrize(
    "section",
    [
        {"pcrs": {0: []}},
        {"pcrs": {0: ["ab" * 20]}},
        {"pcrs": {32: ["ab" * 48]}},
        {"pcrs": {"0": ["ab" * 48]}},
        {"max_age_s": 0},
        {"future_skew_s": -1},
        {"allow_debug": True},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        looking(**section)


def test_a_policy_with_registers_has_a_digest_that_tells_them_apart() -> None:
    assert looking(pcrs={0: [IMAGE]}).digest() != looking(pcrs={1: [IMAGE]}).digest()


def test_evidence_without_a_document_is_refused() -> None:
    result = appraise(mint.Evidence(mint.Platform.NITRO, {"dok": b""}), builtin("baseline"), {}, pki.NOW_MS)
    assert (result.reasons, result.claims["nitro"]) == (("nitro.format",), {})


def test_text_in_parts_is_read_as_one() -> None:
    payload = cbor2.dumps(ENCLAVE.fields()).replace(b"\x66digest", b"\x7f\x63dig\x63est\xff", 1)
    assert judge(ENCLAVE.sign(payload)).reasons == ()
