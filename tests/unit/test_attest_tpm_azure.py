"""Confidential VMs of Azure: the hardware vouches for the TPM's key, and the TPM for what was started."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hanzo_compute.attestation import AttestationResult, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.model.evidence import Evidence, Tier
from tests.support import mint_azure, mint_tpm
from tests.support.mint_azure import jwk, runtime, vm
from tests.support.mint_tpm import NONCE, evidence
from tests.support.pki import NOW_MS

MEASUREMENT = bytes(range(100, 148)).hex()


def judged(item: Evidence, policy: Any = None, **given: Any) -> AttestationResult:
    return appraise(item, policy or builtin("baseline"), {}, NOW_MS, **{"anchors": [mint_azure.ROOT], **given})


def test_it_is_of_the_tier_of_its_processor_with_the_claims_of_both() -> None:
    result = judged(vm(), nonce=NONCE)
    assert (result.verdict, result.authentic, result.tier, result.reasons) == (
        Verdict.ACCEPT,
        True,
        Tier.CPU_TEE,
        (),
    )
    claims = result.claims["tpm"]
    assert claims["snp"]["measurement"] == MEASUREMENT
    assert (claims["hcl_report_type"], claims["secure_boot"], claims["hcl_user_data"]) == ("SNP", True, "00" * 64)
    assert {"snp.signature", "snp.chain.root", "tpm.signature"} <= {check.id for check in result.checks}


def test_the_nonce_is_the_quotes_to_answer() -> None:
    assert judged(vm(), nonce=bytes(32)).reasons == ("tpm.nonce",)


@pytest.mark.parametrize("hashed", [1, 2, 3])
def test_runtime_data_by_each_hash(hashed: int) -> None:
    assert judged(vm(hashed=hashed)).verdict is Verdict.ACCEPT


def test_the_policy_of_the_processor_applies() -> None:
    document = builtin("baseline").model_dump(mode="json")
    document["require"]["measurement"] = True
    document["tpm"]["pcrs"] = {"sha256": {"0": [mint_tpm.PCRS[0].hex()]}}
    document = {name: document[name] for name in ("name", "version", "require", "tpm")}
    for measurement, verdict in ((MEASUREMENT, Verdict.ACCEPT), ("00" * 48, Verdict.REJECT)):
        policy = from_document({**document, "snp": {"measurements": [measurement]}})
        result = judged(vm(), policy)
        assert result.verdict is verdict, result.reasons
    assert result.reasons == ("snp.measurement",)


def test_a_debugged_guest_is_refused() -> None:
    result = judged(vm(policy=1 << 19 | 0x3001F))
    assert result.authentic
    assert result.reasons == ("snp.guest.debug",)


@pytest.mark.parametrize("report_data", [bytes(63) + b"\1", None], ids=["of others", "and something behind the hash"])
def test_runtime_data_that_the_report_does_not_vouch_for(report_data: bytes | None) -> None:
    report_data = report_data or hashlib.sha256(runtime()).digest() + bytes(31) + b"\1"
    result = judged(vm(report_data=report_data))
    assert (result.authentic, result.reasons) == (False, ("tpm.azure_runtime_data",))


def test_a_root_that_nobody_pinned() -> None:
    result = judged(vm(), anchors=[])
    assert (result.authentic, result.reasons) == (False, ("snp.chain.root",))


def test_a_key_that_is_not_the_one_of_the_runtime_data() -> None:
    other = mint_tpm.minted()
    item = vm()
    result = judged(evidence({**item.files, "ak": other.ak_area.raw}))
    assert not result.authentic
    assert "tpm.ak_key" in result.reasons


def test_a_software_tpm_below_the_hardware_is_the_hardwares() -> None:
    tpm = mint_tpm.minted().with_(ak=mint_tpm.RSA_KEY)
    message = tpm.message(firmware=mint_tpm.SWTPM)
    item = vm()
    signature = mint_tpm.sign(mint_tpm.RSA_KEY, message)
    assert judged(evidence({**item.files, "message": message, "signature": signature})).verdict is Verdict.ACCEPT


BROKEN = {
    "no JSON": b"{",
    "no object": b"[]",
    "a name twice": b'{"keys": [], "keys": []}',
    "nested too deep": b"[" * 1200,
    "no keys": runtime(keys=None),
    "two keys of the name": runtime(keys=[jwk(), jwk()]),
    "another name": runtime(keys=[jwk("HCLEkPub")]),
    "a key of another kind": runtime(keys=[jwk(kty="EC")]),
    "a key that does not sign": runtime(keys=[jwk(key_ops=["encrypt"])]),
    "a number that is none": runtime(keys=[jwk(n="*")]),
    "a number that is missing": runtime(keys=[jwk(e=None)]),
    "a small key": runtime(keys=[jwk(n=mint_azure.number(1 << 511 | 1))]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_runtime_data_that_are_not_of_their_format(what: str) -> None:
    result = judged(vm(BROKEN[what]))
    assert (result.authentic, result.reasons) == (False, ("tpm.format",))


def test_a_report_that_cannot_be_read() -> None:
    item = vm()
    blob = item.files["hcl_report"]
    short = evidence({**item.files, "hcl_report": blob[:1236]})
    assert judged(short).reasons == ("tpm.format",)
    other = evidence({**item.files, "hcl_report": blob[:32] + bytes(1184) + blob[1216:]})
    assert not judged(other).authentic
