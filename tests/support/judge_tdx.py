"""Judging evidence of TDX and SGX that tests mint, and what it is refused for."""

from __future__ import annotations

from typing import Any

from hanzo_compute.attestation import AttestationResult, Policy, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support import mint_tdx as mint
from tests.support.pki import NOW_MS

OF = mint.intel()
TD = mint.td()
TDX = mint.collateral(OF)
SGX = mint.collateral(OF, "SGX")
OPINION = "dcap_qvl"


def judge(
    quote: bytes,
    collateral: bytes | None = TDX,
    *,
    platform: Platform = Platform.TDX,
    by: Policy | None = None,
    of: mint.Intel | None = OF,
    **files: bytes,
) -> AttestationResult:
    given = {"quote": quote, **({} if collateral is None else {"collateral": collateral}), **files}
    anchors = of.anchors if of else ()
    return appraise(Evidence(platform, given), by or builtin("baseline"), {}, NOW_MS, anchors=anchors)


def refused(result: AttestationResult, *codes: str, authentic: bool, platform: str = "tdx") -> None:
    """For these reasons and no others, apart from dcap-qvl's own opinion."""
    assert result.verdict is Verdict.REJECT
    assert [each for each in result.reasons if not each.endswith(OPINION)] == [f"{platform}.{code}" for code in codes]
    assert result.authentic is authentic


def strict(**section: Any) -> Policy:
    return from_document(builtin("baseline").model_dump(mode="json") | {"tdx": section})
