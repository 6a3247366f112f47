"""Tiers 3 and 4: evidence of a CPU that commits to that of its GPUs, all of it minted. No genuine reference values of
Blackwell were to be had, so tier 4 was tested with these, and with genuine reports without them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hanzo_compute.attestation import AttestationResult, Binding, appraise, builtin
from hanzo_compute.model.evidence import Evidence, Platform, Tier, bundle_digest
from tests.support import mint_nvidia as mint
from tests.support import mint_snp
from tests.support.pki import NOW_MS

KEYS = (bytes(32), b"signing key", bytes(32))
ASKED = Binding(*KEYS)


def gpu(chip: str) -> Evidence:
    """A device that answers the challenge, with its reference values."""
    device = mint.device(chip)
    product, switch = chip.replace("_", ""), chip == "LS_10"
    vbios = mint.signed(
        mint.tag(mint.VBIOS_GOLDEN, version="96.10.55.00.01" if switch else mint.VBIOS, product=product)
    )
    files = {"driver_rim": mint.signed(mint.tag(mint.DRIVER_GOLDEN, product=product))} if not switch else {}
    return Evidence(Platform.NVIDIA, device.files(report=device.report(ASKED.gpu_nonce()), vbios_rim=vbios, **files))


def together(gpus: Sequence[Evidence], committed: Sequence[Evidence] | None = None) -> AttestationResult:
    """Of a guest with these GPUs, that commits to them, or to others."""
    binding = Binding(*KEYS, bundle_digest(gpus if committed is None else committed))
    guest = mint_snp.Guest().but(report_data=binding.report_data()).evidence()
    binding = Binding(*KEYS, bundle_digest(gpus))
    anchors = (mint_snp.ark("Milan").pem, *mint.ANCHORS)
    return appraise([guest, *gpus], builtin("baseline"), {}, NOW_MS, binding=binding, anchors=anchors)


@pytest.mark.parametrize(
    ("chips", "tier"),
    [
        (["GH100"], Tier.GPU_CC),
        (["GB100"], Tier.GPU_TEE_IO),
        (["GB100", "GH100"], Tier.GPU_CC),
        (["LS_10", "GB100", "LS_10"], Tier.GPU_TEE_IO),
        (["GH100", "GH100", "LS_10"], Tier.GPU_CC),
        (["LS_10"], Tier.CPU_TEE),
    ],
    ids=str,
)
def test_bound_devices_reach_their_tier(chips: list[str], tier: Tier) -> None:
    result = together([gpu(chip) for chip in chips])
    assert (result.verdict, result.reasons) == ("accept", ())
    assert (result.tier, bool(result.tier_why)) == (tier, True)


def test_gpus_that_the_cpu_does_not_commit_to_are_refused() -> None:
    result = together([gpu("GB100")], committed=[gpu("GB100")])
    assert (result.verdict, result.tier, result.reasons) == ("reject", Tier.OPEN, ("snp.binding",))


def test_gpus_without_a_cpu_reach_no_tier() -> None:
    bundle = [gpu("GB100")]
    result = appraise(bundle, builtin("baseline"), {}, NOW_MS, binding=ASKED, anchors=mint.ANCHORS)
    assert (result.verdict, result.tier) == ("accept", Tier.OPEN)
    assert "proves nothing about its machine" in result.tier_why


def test_a_gpu_that_answered_another_challenge_is_refused() -> None:
    device = mint.device("GB100")
    result = together([Evidence(Platform.NVIDIA, device.files(report=device.report(bytes(32))))])
    assert (result.verdict, result.reasons) == ("reject", ("nvidia.binding",))


def test_without_a_binding_gpus_add_nothing() -> None:
    guest = mint_snp.Guest().evidence()
    anchors = (mint_snp.ark("Milan").pem, *mint.ANCHORS)
    result = appraise([guest, gpu("GB100")], builtin("baseline"), {}, NOW_MS, anchors=anchors)
    assert (result.verdict, result.tier) == ("accept", Tier.CPU_TEE)
    assert "no binding was given" in result.tier_why
