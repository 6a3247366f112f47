"""Evidence of TDX and SGX that holds: what is read from it, what a policy may ask, and what it proves."""

from __future__ import annotations

from typing import Any

import pytest

from hanzo_compute.attestation import AttestationResult, Policy, Verdict, appraise, builtin
from hanzo_compute.attestation.checks import Context
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.attestation.tdx.examine import examine_tdx
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import Evidence, Platform, Tier
from tests.support import mint_tdx as mint
from tests.support.mint_eventlog import event, extended, header
from tests.support.pki import NOW_MS

OF = mint.intel()
TDX = mint.collateral(OF)
SGX = mint.collateral(OF, "SGX")
MEASURED = {"mrtd": "44" * 48, "rtmr1": "00" * 48, "rtmr2": "00" * 48}
ENCLAVE = {"mrenclave": "11" * 32, "mrsigner": "22" * 32, "isvprodid": 3, "min_isvsvn": 4}


def policy(platform: str = "tdx", **section: Any) -> Policy:
    """The baseline with this section."""
    document = builtin("baseline").model_dump(mode="json") | {platform: section}
    return from_document(document)


def judge(
    quote: bytes, platform: Platform = Platform.TDX, by: Policy | None = None, **files: bytes
) -> AttestationResult:
    evidence = Evidence(platform, {"quote": quote, **files})
    return appraise(evidence, by or builtin("baseline"), {}, NOW_MS, anchors=OF.anchors)


def of(result: AttestationResult, name: str) -> Any:
    """One check."""
    return next(each for each in result.checks if each.id == name)


@pytest.mark.parametrize(
    "quote",
    [
        mint.quote(OF, mint.td()),
        mint.quote(OF, mint.td(tee_tcb_svn=mint.VERSIONED)),
        mint.quote(OF, mint.td(), version=5, body_type=2),
        mint.quote(OF, mint.td(extended=True), version=5),
        mint.quote(OF, mint.td(), pem=OF.pem + b"\0"),
        mint.quote(OF, mint.td(), trailing=bytes(3000)),
    ],
    ids=["v4", "module 1", "v5 of TDX 1.0", "v5 of TDX 1.5", "chain with a zero", "zeros behind it"],
)
def test_a_trust_domain_is_accepted_and_proves_tier_2(quote: bytes) -> None:
    result = judge(quote, collateral=TDX)
    assert (result.verdict, result.authentic, result.reasons) == (Verdict.ACCEPT, True, ())
    assert result.tier is Tier.CPU_TEE
    assert "GPU" in result.tier_why


def test_an_enclave_is_accepted_and_proves_no_tier() -> None:
    result = judge(mint.sgx_quote(OF), Platform.SGX, collateral=SGX)
    assert (result.verdict, result.authentic, result.tier) == (Verdict.ACCEPT, True, Tier.OPEN)


def test_claims_are_named_as_the_specifications_name_them() -> None:
    claims = judge(mint.quote(OF, mint.td(extended=True, rtmr2=b"\5" * 48), version=5), collateral=TDX).claims["tdx"]
    wanted = {
        "version": 5,
        "body_type": 3,
        "tee": "TDX",
        "mrtd": "44" * 48,
        "rtmr2": "05" * 48,
        "mrservicetd": "00" * 48,
        "td_attributes": "0000001000000000",
        "debug": False,
        "fmspc": mint.FMSPC,
        "pck_ca": "Intel SGX PCK Platform CA",
        "tcb_status": "UpToDate",
        "tcb_evaluation_data_number": 17,
    }
    assert {name: claims[name] for name in wanted} == wanted


def test_without_collateral_it_cannot_be_said() -> None:
    result = judge(mint.quote(OF, mint.td()))
    assert (result.verdict, result.authentic) == (Verdict.UNAVAILABLE, True)
    assert result.reasons == ("tdx.tcb_status",)
    assert of(result, "tdx.tcb_status").missing == "collateral"


def test_without_collateral_what_speaks_against_it_still_does() -> None:
    quote = mint.quote(OF, mint.td(td_attributes=b"\1\0\0\x10\0\0\0\0"))
    assert judge(quote).verdict is Verdict.REJECT


def test_collateral_may_come_apart_from_the_evidence() -> None:
    evidence = Evidence(Platform.TDX, {"quote": mint.quote(OF, mint.td())})
    given = {Platform.TDX: {"collateral": TDX}}
    result = appraise(evidence, builtin("baseline"), given, NOW_MS, anchors=OF.anchors)
    assert result.verdict is Verdict.ACCEPT


def test_every_check_runs_whatever_the_ones_before_it_say() -> None:
    good = judge(mint.quote(OF, mint.td()), collateral=TDX)
    bad = judge(mint.quote(OF, mint.td(), vendor=bytes(16), qe_key=mint.p256()), collateral=TDX)
    assert [each.id for each in bad.checks] == [each.id for each in good.checks]
    assert all(each.source for each in good.checks)


def test_a_policy_may_accept_another_status_but_its_advisories_are_its_own_matter() -> None:
    old = mint.new_intel(extension=mint.sgx_extension(components=bytes([6] * 16), pcesvn=11))
    evidence = Evidence(Platform.TDX, {"quote": mint.quote(old, mint.td()), "collateral": mint.collateral(old)})

    def reasons(**section: Any) -> tuple[str, ...]:
        return appraise(evidence, policy(**section), {}, NOW_MS, anchors=old.anchors).reasons

    both = ["UpToDate", "OutOfDate"]
    assert reasons() == ("tdx.tcb_status", "tdx.dcap_qvl")
    assert reasons(tcb_statuses=both) == ()
    assert reasons(tcb_statuses=both, accepted_advisories=["INTEL-SA-00001"]) == ()
    assert reasons(tcb_statuses=both, accepted_advisories=[]) == ("tdx.advisories", "tdx.dcap_qvl")
    assert reasons(tcb_statuses=both, rejected_advisories=["INTEL-SA-00001"]) == ("tdx.advisories", "tdx.dcap_qvl")


def test_the_status_is_the_worst_of_platform_module_and_quoting_enclave() -> None:
    module = judge(mint.quote(OF, mint.td(tee_tcb_svn=bytes([5, 1, 3, *[0] * 13]))), collateral=TDX)
    assert module.claims["tdx"]["tcb_status"] == "OutOfDate"
    assert module.claims["tdx"]["advisories"] == ["INTEL-SA-00002"]
    enclave = judge(mint.quote(OF, mint.td(), qe={"isvsvn": 7}), collateral=TDX)
    assert enclave.claims["tdx"]["tcb_status"] == "OutOfDate"
    assert "quoting enclave: OutOfDate" in of(enclave, "tdx.tcb_status").detail


@pytest.mark.parametrize(
    ("body", "section"),
    [
        ({"td_attributes": b"\1\0\0\x10\0\0\0\0"}, {"allow_debug": True}),
        ({"td_attributes": bytes(8)}, {"require_sept_ve_disable": False}),
        ({"extended": True, "mrservicetd": b"\7" * 48}, {"mrservicetd": ["07" * 48]}),
        ({"td_attributes": b"\0\0\0\x30\0\0\0\0"}, {"td_attributes_allowed": "000000f000000080"}),
    ],
    ids=["debug", "SEPT_VE_DISABLE", "service TD", "migratable"],
)
def test_what_dcap_qvl_refuses_by_fixed_rules_a_policy_may_accept(
    body: dict[str, Any], section: dict[str, Any]
) -> None:
    quote = mint.quote(OF, mint.td(**body), version=5 if body.get("extended") else 4)
    assert judge(quote, collateral=TDX).verdict is Verdict.REJECT
    result = judge(quote, by=policy(**section), collateral=TDX)
    assert (result.verdict, result.reasons) == (Verdict.ACCEPT, ())
    assert of(result, "tdx.dcap_qvl").ok is None


def test_an_enclave_of_a_debugger_is_accepted_if_the_policy_says_so() -> None:
    quote = mint.sgx_quote(OF, attributes=bytes.fromhex("0700000000000000e700000000000000"))
    assert judge(quote, Platform.SGX, collateral=SGX).reasons == ("sgx.debug",)
    assert judge(quote, Platform.SGX, policy("sgx", allow_debug=True), collateral=SGX).verdict is Verdict.ACCEPT


def test_a_reference_holds_in_all_its_values() -> None:
    quote = mint.quote(OF, mint.td(rtmr3=b"\x99" * 48))
    right, wrong = MEASURED | {"rtmr3": "99" * 48}, MEASURED | {"rtmr3": "98" * 48}
    other = {"mrtd": "98" * 48, "rtmr1": "98" * 48, "rtmr2": "98" * 48, "rtmr3": "99" * 48}
    assert judge(quote, by=policy(references=[other, right]), collateral=TDX).verdict is Verdict.ACCEPT
    assert judge(quote, by=policy(references=[MEASURED]), collateral=TDX).verdict is Verdict.ACCEPT
    result = judge(quote, by=policy(references=[other, wrong]), collateral=TDX)
    assert result.reasons == ("tdx.rtmr3", "tdx.measurement")
    assert (of(result, "tdx.rtmr3").expected, of(result, "tdx.rtmr3").actual) == ("98" * 48, "99" * 48)


@pytest.mark.parametrize("name", ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig"])
def test_each_value_of_a_reference_counts(name: str) -> None:
    result = judge(mint.quote(OF, mint.td()), by=policy(references=[MEASURED | {name: "ab" * 48}]), collateral=TDX)
    assert result.reasons == (f"tdx.{name}", "tdx.measurement")


@pytest.mark.parametrize(
    ("name", "value"), [("mrenclave", "ab" * 32), ("mrsigner", "ab" * 32), ("isvprodid", 4), ("min_isvsvn", 5)]
)
def test_each_value_of_an_enclaves_reference_counts(name: str, value: Any) -> None:
    quote = mint.sgx_quote(OF)
    assert judge(quote, Platform.SGX, policy("sgx", references=[ENCLAVE]), collateral=SGX).verdict is Verdict.ACCEPT
    result = judge(quote, Platform.SGX, policy("sgx", references=[ENCLAVE | {name: value}]), collateral=SGX)
    assert result.reasons == (f"sgx.{name.removeprefix('min_')}", "sgx.measurement")


@pytest.mark.parametrize("reference", [{}, {"mrsigner": "22" * 32}, {"isvprodid": 3, "min_isvsvn": 1}])
def test_a_reference_that_names_no_enclave_is_no_policy(reference: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        policy("sgx", references=[reference])


def test_a_reference_of_a_trust_domain_names_firmware_kernel_and_system() -> None:
    with pytest.raises(InvalidRequest):
        policy(references=[{"mrtd": "44" * 48}])


def test_the_strict_default_asks_for_reference_values() -> None:
    strict = from_document({"name": "strict", "version": 1, "tdx": {}})
    result = judge(mint.quote(OF, mint.td()), by=strict, collateral=TDX)
    assert result.reasons == ("tdx.measurement", "tdx.nonce", "tdx.binding")


def test_the_tdx_module_may_be_narrowed_down() -> None:
    quote = mint.quote(OF, mint.td())
    assert judge(quote, by=policy(mrseam=["33" * 48]), collateral=TDX).verdict is Verdict.ACCEPT
    assert judge(quote, by=policy(mrseam=["34" * 48]), collateral=TDX).reasons == ("tdx.mrseam",)


def test_tee_tcb_svn_has_a_minimum_in_each_byte() -> None:
    quote = mint.quote(OF, mint.td())
    assert judge(quote, by=policy(min_tee_tcb_svn="050003" + "00" * 13), collateral=TDX).verdict is Verdict.ACCEPT
    for least in ("060003", "050103", "050004"):
        assert judge(quote, by=policy(min_tee_tcb_svn=least + "00" * 13), collateral=TDX).reasons == (
            "tdx.tee_tcb_svn",
        )


LOG = header([0x000C]) + event(1, 1, b"firmware") + event(2, 4, b"kernel") + event(4, 4, b"application")
REGISTERS = {"rtmr0": extended([b"firmware"]), "rtmr1": extended([b"kernel"]), "rtmr3": extended([b"application"])}


@pytest.mark.parametrize("name", ["ccel", "eventlog"])
def test_an_event_log_that_makes_the_registers_holds(name: str) -> None:
    result = judge(mint.quote(OF, mint.td(**REGISTERS)), collateral=TDX, **{name: LOG + b"\xff" * 200})
    assert result.verdict is Verdict.ACCEPT
    assert of(result, "tdx.eventlog").ok is True


def test_an_event_log_may_be_asked_for() -> None:
    quote = mint.quote(OF, mint.td(**REGISTERS))
    asked = policy(require_event_log=True)
    assert judge(quote, by=asked, collateral=TDX).reasons == ("tdx.eventlog",)
    assert judge(quote, by=asked, collateral=TDX, ccel=LOG).verdict is Verdict.ACCEPT


def test_a_nonce_shorter_than_the_report_data_is_filled_up() -> None:
    quote = mint.quote(OF, mint.td(report_data=b"n" * 32 + bytes(32)))
    evidence = Evidence(Platform.TDX, {"quote": quote, "collateral": TDX})
    given: dict[str, Any] = {"anchors": OF.anchors}
    assert appraise(evidence, builtin("baseline"), {}, NOW_MS, nonce=b"n" * 32, **given).verdict is Verdict.ACCEPT
    other = appraise(evidence, builtin("baseline"), {}, NOW_MS, nonce=b"m" * 32, **given)
    assert other.reasons == ("tdx.nonce",)


def test_the_identity_is_the_platforms() -> None:
    serial = OF.pck.certificate.serial_number
    files = {"quote": mint.quote(OF, mint.td())}
    found = examine_tdx(files, Context(NOW_MS, builtin("baseline"), anchors=OF.anchors))
    assert found.identity == f"{serial:x}"
