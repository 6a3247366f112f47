"""What is collected is accepted: minted evidence through played hardware, the attester, and the appraisal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.attester import HardwareAttester, Sources, nvml, sev_guest, tsm
from hanzo_compute.attestation import AttestationResult, Binding, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.model.evidence import Evidence, Platform, Tier, bundle_digest
from hanzo_compute.ports import Found
from tests.support import judge_tdx, mint_nvidia, mint_snp, mint_tdx, pki
from tests.support.fake_devices import SevGuest
from tests.support.fake_nvml import FakeNvml
from tests.support.fake_tsm import ROOT, Blobs, Entry, KernelTsm

NONCE, SIGNING, SEALING = bytes(range(32)), b"signing key", bytes(32)
BINDING = Binding(NONCE, SIGNING, SEALING)
TABLE = mint_snp.cert_table(
    vcek=mint_snp.Vek().der(),
    ask=mint_snp.ask("Milan").der,
    ark=mint_snp.ark("Milan").der,
)
DEVICES = [mint_nvidia.device(), mint_nvidia.device()]
ANCHORS = (mint_snp.ark("Milan").pem, *mint_nvidia.ANCHORS)
POLICY = from_document(
    builtin("baseline").model_dump(mode="json")
    | {"require": {"freshness": True, "binding": True, "measurement": False}}
)


def firmware(user_data: bytes, vmpl: int) -> bytes:
    return mint_snp.report(report_data=user_data, vmpl=vmpl)


def gpu(index: int, nonce: bytes) -> tuple[bytes, bytes]:
    return DEVICES[index].report(nonce), DEVICES[index].pem


def attester(folder: Path, by: str, *ready: Platform) -> HardwareAttester:
    """Of a guest whose CPU is asked through configfs-tsm or the device."""
    kernel = KernelTsm(lambda entry: (firmware(entry.inblob, entry.privlevel), TABLE, b""))
    if by == "configfs-tsm":
        (folder / "report").mkdir()
    return HardwareAttester(
        Sources(
            found=lambda: [Found(each.value, each, True, by) for each in ready],
            tsm_root=folder / "report",
            tsm=lambda request, _root: tsm.collect(request, ROOT, tree=kernel),
            sev_guest=lambda data: sev_guest.collect(data, device=Path("/dev/null"), call=SevGuest(firmware, TABLE)),
            gpus=lambda nonce: nvml.collect(nonce, FakeNvml(count=len(DEVICES), make=gpu)),
        )
    )


def judged(evidence: Sequence[Evidence], binding: Binding, **given: Any) -> AttestationResult:
    return appraise(evidence, POLICY, {}, pki.NOW_MS, binding=binding, anchors=ANCHORS, **given)


@pytest.mark.parametrize("by", ["configfs-tsm", "sev-guest"])
def test_a_guest_of_snp(tmp_path: Path, by: str) -> None:
    evidence = attester(tmp_path, by, Platform.SNP).collect(BINDING)
    result = judged(evidence, BINDING)
    assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.CPU_TEE), result.reasons
    assert set(evidence[0].files) == {"report", "cert_table"}
    other = judged(evidence, Binding(NONCE, b"another key", SEALING))
    assert other.reasons == ("snp.binding",)


def test_a_guest_of_tdx(tmp_path: Path) -> None:
    def quoted(entry: Entry) -> Blobs:
        return mint_tdx.quote(judge_tdx.OF, mint_tdx.td(report_data=entry.inblob)), b"", b""

    kernel = KernelTsm(
        quoted, provider="tdx_guest", attributes=frozenset({"inblob", "outblob", "generation", "provider"})
    )
    (tmp_path / "report").mkdir()
    guest = HardwareAttester(
        Sources(
            found=lambda: [Found("tdx", Platform.TDX, True, "configfs-tsm")],
            tsm_root=tmp_path / "report",
            tsm=lambda request, _root: tsm.collect(request, ROOT, tree=kernel),
        )
    )
    evidence = guest.collect(BINDING)
    collateral = {Platform.TDX: {"collateral": judge_tdx.TDX}}

    def judged(binding: Binding) -> AttestationResult:
        return appraise(evidence, POLICY, collateral, pki.NOW_MS, binding=binding, anchors=judge_tdx.OF.anchors)

    result = judged(BINDING)
    assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.CPU_TEE), result.reasons
    assert judged(Binding(NONCE, b"another key", SEALING)).reasons == ("tdx.binding",)


def test_gpus_that_the_cpu_commits_to(tmp_path: Path) -> None:
    found = attester(tmp_path, "sev-guest", Platform.SNP, Platform.NVIDIA).collect(BINDING)
    gpus = [each for each in found if each.platform is Platform.NVIDIA]
    bound = Binding(NONCE, SIGNING, SEALING, bundle_digest(gpus))
    result = judged(found, bound)
    assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.GPU_CC), result.reasons
    # One GPU is taken away, and the evidence of another collection put in its place.
    again = attester(tmp_path, "sev-guest", Platform.NVIDIA).collect(BINDING)
    swapped = judged([*found[:2], again[1]], bound)
    assert "nvidia.cpu_binding" in swapped.reasons
    assert "snp.binding" in judged(found, BINDING).reasons


def test_an_answer_to_a_nonce(tmp_path: Path) -> None:
    (evidence,) = attester(tmp_path, "sev-guest", Platform.SNP).answer(NONCE)
    baseline = builtin("baseline")
    for nonce, verdict in ((NONCE, Verdict.ACCEPT), (bytes(32), Verdict.REJECT)):
        result = appraise(evidence, baseline, {}, pki.NOW_MS, nonce=nonce, anchors=ANCHORS)
        assert result.verdict is verdict, result.reasons
