"""Reports that real processors made, with the verdicts that are expected of them."""

from __future__ import annotations

from typing import Any

import pytest

from hanzo_compute.attestation import Verdict, appraise, builtin
from hanzo_compute.attestation.checks import Context
from hanzo_compute.attestation.snp import report
from hanzo_compute.attestation.snp.examine import examine
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.mint_snp import with_snp
from tests.support.vectors import Case, case, cases

# The code for each reason that a manifest gives in its own words.
REASONS = {
    "guest policy allows DEBUG": "snp.guest.debug",
    "report VMPL 1 (default policy wants 0)": "snp.vmpl",
    "report signature does not verify under this VCEK": "snp.signature",
    "VCEK TCB extensions != REPORTED_TCB": "snp.tcb.endorsed",
    "VCEK hwID != CHIP_ID": "snp.chip_id",
    "VCEK not issued by any pinned ASK/ASVK": "snp.chain.signatures",
}


def test_all_cases() -> None:
    for each in cases("snp"):
        result = each.appraise()
        assert result.authentic is each.authentic, each.id
        assert result.verdict.value == each.verdict, each.id
        expected = {REASONS[reason] for reason in each.expected["reasons"] if reason in REASONS}
        assert expected <= set(result.reasons), each.id
        assert (result.tier == 2) is (result.verdict is Verdict.ACCEPT), each.id


def test_fields() -> None:
    for each in cases("snp"):
        claims = each.appraise().claims["snp"]
        assert {name: claims.get(name) for name in each.fields} == each.fields, each.id


def test_a_provider_s_key_is_accepted_where_its_level_is() -> None:
    result = case("snp", "milan-vlek-aws").appraise(with_snp({"vmpl": 1}))
    assert result.verdict is Verdict.ACCEPT
    other = case("snp", "milan-vlek-aws").appraise(with_snp({"vmpl": 1, "csp_ids": ["CN=other"]}))
    assert other.reasons == ("snp.csp_id",)


def test_reports_under_the_keys_of_other_chips() -> None:
    """Each report with each other certificate: none is that of another's key."""
    genuine = {each.id: each for each in cases("snp") if each.authentic}
    for one in genuine.values():
        for other in genuine.values():
            if one.evidence.files["vek"] != other.evidence.files["vek"]:
                evidence = one.changed(vek=other.evidence.files["vek"])
                result = appraise(evidence, builtin("baseline"), {}, one.now_ms)
                assert {"snp.signature", "snp.tcb.endorsed"} & set(result.reasons), (one.id, other.id)
                assert not result.authentic


@pytest.mark.parametrize("name", ["genoa-ms", "turin-ms"])
def test_every_byte_of_what_is_signed_counts(name: str) -> None:
    genuine = case("snp", name)
    context = Context(genuine.now_ms, builtin("baseline"))
    for at in range(report.SIGNED):
        assert _refused(genuine, at, context), at


def test_every_byte_of_the_signature_counts() -> None:
    genuine = case("snp", "genoa-ms")
    context = Context(genuine.now_ms, builtin("baseline"))
    for at in range(report.SIGNED, report.SIZE):
        assert _refused(genuine, at, context), at


def _refused(genuine: Case, at: int, context: Context) -> bool:
    raw = bytearray(genuine.evidence.files["report"])
    raw[at] ^= 0x01 << at % 8
    findings = examine({**genuine.evidence.files, "report": bytes(raw)}, context)
    failed = {check.id for check in findings.checks if check.ok is not True}
    return "snp.signature" in failed


def test_without_its_key_a_report_waits_for_it() -> None:
    for each in cases("snp"):
        if each.verdict == "accept":
            evidence = Evidence(Platform.SNP, {"report": each.evidence.files["report"]})
            assert appraise(evidence, builtin("baseline"), {}, each.now_ms).verdict is Verdict.UNAVAILABLE, each.id


def test_before_and_after_the_key_is_valid() -> None:
    year: Any = 365 * 24 * 3600 * 1000
    for each in cases("snp"):
        if each.verdict == "accept":
            for moved in (-year, 8 * year):
                result = appraise(each.evidence, builtin("baseline"), {}, each.now_ms + moved)
                assert result.reasons == ("snp.vek.validity",), each.id
