"""Evidence of NVIDIA's devices that is as it should be, minted; and the parts that read it."""

from __future__ import annotations

from typing import Any

import pytest

from hanzo_compute.attestation import AttestationResult, Binding, Policy, appraisal, appraise, builtin, pins, x509
from hanzo_compute.attestation.checks import Context, Findings
from hanzo_compute.attestation.nvidia import roots
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.model.evidence import Evidence, Platform, Tier, bundle_digest
from tests.support import mint_nvidia as mint
from tests.support.pki import NOW_MS, issue


def policy(measurement: bool = True, freshness: bool = False, **section: Any) -> Policy:
    require = {"freshness": freshness, "binding": False, "measurement": measurement}
    return from_document({"name": "test", "version": 1, "require": require, "nvidia": section})


LENIENT = {"require_ocsp": False}


def judged(files: dict[str, bytes], under: Policy | None = None, **given: Any) -> AttestationResult:
    evidence = Evidence(Platform.NVIDIA, files)
    given.setdefault("anchors", mint.ANCHORS)
    return appraise(evidence, under or policy(**LENIENT), given.pop("collateral", {}), NOW_MS, **given)


def outcome(result: AttestationResult, name: str) -> Any:
    found = [check for check in result.checks if check.id == name]
    assert len(found) == 1, f"{name}: {len(found)} times"
    return found[0].ok


def test_a_hopper_with_its_reference_values_is_accepted() -> None:
    result = judged(mint.device().files(**mint.rims()), nonce=mint.NONCE)
    assert (result.verdict, result.authentic, result.reasons) == ("accept", True, ())
    claims = result.claims["nvidia"]
    assert claims["rim_ids"] == {
        "driver_rim": "NV_GPU_DRIVER_GH100_550.90.07",
        "vbios_rim": "NV_GPU_VBIOS_1010_0200_882_96009F0001",
    }
    assert (claims["architecture"], claims["mode"], claims["opaque_driver"]) == ("hopper", "single", "550.90.07")
    assert outcome(result, "nvidia.debug") is None
    assert result.tier is Tier.OPEN
    assert "by itself" in result.tier_why


def test_a_blackwell_with_its_reference_values_is_accepted() -> None:
    gpu = mint.device("GB100")
    files = gpu.files(
        driver_rim=mint.signed(mint.tag(mint.DRIVER_GOLDEN, product="GB100")),
        vbios_rim=mint.signed(mint.tag(mint.VBIOS_GOLDEN, version=mint.VBIOS, product="GB100")),
    )
    result = judged(files)
    assert (result.verdict, result.reasons) == ("accept", ())
    assert result.claims["nvidia"]["rim_ids"]["driver_rim"] == "NV_GPU_CC_DRIVER_GB100_550.90.07"
    assert result.claims["nvidia"]["mode"] == "multi"
    assert outcome(result, "nvidia.debug") is True


def test_a_switch_needs_no_driver() -> None:
    switch = mint.device("LS_10")
    golden = {index: [mint.value(index + 1)] for index in range(31)}
    rim = mint.signed(mint.tag(golden, version="96.10.55.00.01", product="LS10"))
    result = judged(switch.files(vbios_rim=rim))
    assert (result.verdict, result.reasons) == ("accept", ())
    assert result.claims["nvidia"]["rim_ids"] == {"vbios_rim": "NV_SWITCH_BIOS_5612_0002_890_9610550001"}
    assert "nvidia.mode" not in {check.id for check in result.checks}


@pytest.mark.parametrize(
    ("given", "missing"), [((), "driver_rim"), (("driver_rim",), "vbios_rim"), (("vbios_rim",), "driver_rim")]
)
def test_without_reference_values_it_cannot_be_said(given: tuple[str, ...], missing: str) -> None:
    files = mint.device().files(**{name: mint.rims()[name] for name in given})
    result = judged(files)
    assert result.verdict == "unavailable"
    assert f"nvidia.{missing}.version" in result.reasons
    assert {check.missing for check in result.checks if check.id in result.reasons} <= {"driver_rim", "vbios_rim"}
    assert judged(files, policy(measurement=False, **LENIENT)).verdict == "accept"


def test_reference_values_come_as_collateral_and_each_device_finds_its_own() -> None:
    other = mint.signed(mint.tag(mint.VBIOS_GOLDEN, version="96.00.5E.00.01"))
    collateral = {"driver_rim": mint.driver_rim(), "vbios_rim": other, "vbios_rim-2": mint.vbios_rim()}
    assert judged(mint.device().files(), collateral={Platform.NVIDIA: collateral}).verdict == "accept"
    result = judged(mint.device().files(), collateral={Platform.NVIDIA: {**collateral, "vbios_rim-2": other}})
    assert set(result.reasons) == {"nvidia.vbios_rim.version"}


def test_reference_values_by_themselves_prove_nothing_about_a_device() -> None:
    result = judged({"rim": mint.driver_rim()}, builtin("baseline"))
    assert (result.verdict, result.authentic, result.tier) == ("accept", True, Tier.OPEN)
    assert result.claims["nvidia"]["version"] == mint.DRIVER
    assert judged({"rim": mint.driver_rim()}, builtin("production")).verdict == "reject"


def test_a_chain_may_leave_out_its_root() -> None:
    gpu = mint.device()
    files = gpu.files(chain=b"".join(each.pem for each in gpu.chain[:-1]), **mint.rims())
    files["driver_rim"] = mint.signed(mint.tag(mint.DRIVER_GOLDEN), mint.signer()[:-1])
    assert judged(files).verdict == "accept"


def test_the_roots_are_those_that_are_pinned() -> None:
    for pem, pinned in ((roots.DEVICE, pins.NVIDIA_DEVICE), (roots.RIM, pins.NVIDIA_RIM)):
        (root,) = x509.read(pem)
        assert root.sha256 == pinned[0].sha256
        assert roots.completed([root], pem, ()) == (root,)


def test_an_early_driver_states_no_firmware() -> None:
    fields = {kind: data for kind, data in mint.opaque("GH100").items() if kind != 20}
    result = judged(mint.device(fields=fields).files(**mint.rims()))
    assert result.verdict == "accept"
    assert "nvidia.fwid" not in {check.id for check in result.checks}


def test_the_extension_of_the_firmware_may_be_critical() -> None:
    assert judged(mint.device(critical=True).files(**mint.rims())).verdict == "accept"
    assert judged(mint.device("GB100", critical=True).files(), policy(measurement=False, **LENIENT)).verdict == "accept"


def test_a_decoder_that_is_off_is_not_measured() -> None:
    measured = {**mint.MEASURED, 36: mint.value(0, "nothing")}
    gpu = mint.device()
    off = gpu.report(measured=measured, fields={11: b"\x55"})
    assert judged(gpu.files(report=off, **mint.rims())).verdict == "accept"
    on = gpu.report(measured=measured)
    assert judged(gpu.files(report=on, **mint.rims())).reasons == ("nvidia.measurements",)


def test_a_report_of_the_chips_own_firmware_reaches_no_tier() -> None:
    gpu = mint.device("GB100", fields={1: b"x"})
    findings = appraisal._examine(Platform.NVIDIA)(gpu.files(), _context())
    assert (findings.tier, findings.tiered) == (Tier.OPEN, True)
    assert "names no driver" in findings.tier_why


def _context(**given: Any) -> Context:
    return Context(NOW_MS, policy(measurement=False, **LENIENT), anchors=mint.ANCHORS, **given)


def test_measurements_may_be_of_any_size_and_order() -> None:
    gpu = mint.device()
    measured = [(3, b"\1"), (1, mint.value(1)), (2, bytes(100)), (255, b"")]
    result = judged(gpu.files(report=gpu.report(measured=measured)), policy(measurement=False, **LENIENT))
    assert result.verdict == "accept"
    assert result.claims["nvidia"]["measurements"] == {
        "1": mint.value(1).hex(),
        "2": bytes(100).hex(),
        "3": "01",
        "255": "",
    }


def test_good_ocsp_responses_are_enough_under_the_strict_default() -> None:
    gpu = mint.device()
    files = gpu.files(**mint.rims(), **mint.answers(gpu.chain[1:]), **mint.answers(mint.signer()))
    result = judged(files, policy())
    assert (result.verdict, result.reasons) == ("accept", ())
    partial = {name: data for name, data in files.items() if name not in mint.answers(gpu.chain[3:])}
    result = judged(partial, policy())
    assert (result.verdict, result.reasons) == ("unavailable", ("nvidia.ocsp",))
    assert outcome(judged(partial), "nvidia.ocsp") is None


def test_an_issuer_may_answer_itself_and_by_name() -> None:
    gpu = mint.device()
    answers = {
        **mint.answers(gpu.chain[1:]),
        "ocsp": mint.Answer(responder=gpu.chain[2]).of(gpu.chain[1], gpu.chain[2]),
    }
    assert outcome(judged(gpu.files(**answers)), "nvidia.ocsp") is True


def test_the_policy_names_versions_architectures_and_modes() -> None:
    files = mint.device().files(**mint.rims())
    listed = policy(drivers=[mint.DRIVER], vbios=[mint.VBIOS.lower()], **LENIENT)
    assert judged(files, listed).verdict == "accept"
    assert judged(files, policy(drivers=["570.1"], vbios=["1"], **LENIENT)).reasons == (
        "nvidia.drivers",
        "nvidia.vbios",
    )
    assert judged(files, policy(architectures=["blackwell"], **LENIENT)).reasons == ("nvidia.architecture",)
    assert judged(files, policy(modes=["multi"], **LENIENT)).reasons == ("nvidia.mode",)


BINDING = Binding(bytes(32), b"signing", bytes(32))


def bundle(*tiers: tuple[Tier, bool]) -> tuple[Tier, str]:
    """The tier of a confidential CPU with GPUs and switches, bound to it; each as its tier and whether it counts."""
    devices = [Evidence(Platform.NVIDIA, {"report": bytes([number])}) for number in range(len(tiers))]
    cpu = Evidence(Platform.SNP, {"report": b"cpu"})
    found = [Findings(tier=Tier.CPU_TEE, tier_why="no GPU")]
    found += [
        Findings(tier=tier, tier_why="the next", tiered=tiered, identity=str(number))
        for number, (tier, tiered) in enumerate(tiers)
    ]
    binding = Binding(bytes(32), b"signing", bytes(32), bundle_digest(devices))
    whole = Findings()
    tier = appraisal._tier([cpu, *devices], found, whole, _context(binding=binding))
    assert all(check.ok for check in whole.checks)
    return tier


SWITCH = (Tier.OPEN, False)
HOPPER, BLACKWELL, UNPROVEN = (Tier.GPU_CC, True), (Tier.GPU_TEE_IO, True), (Tier.OPEN, True)


def test_a_switch_neither_raises_nor_lowers_the_tier() -> None:
    for order in ([SWITCH, BLACKWELL], [BLACKWELL, SWITCH], [BLACKWELL]):
        assert bundle(*order) == (Tier.GPU_TEE_IO, "the next")
    assert bundle(SWITCH, HOPPER)[0] is Tier.GPU_CC
    assert bundle(SWITCH)[0] is Tier.CPU_TEE
    assert "no GPU" in bundle(SWITCH)[1]


def test_the_least_of_several_gpus_is_what_is_proven() -> None:
    assert bundle(BLACKWELL, HOPPER)[0] is Tier.GPU_CC
    assert bundle(BLACKWELL, UNPROVEN)[0] is Tier.CPU_TEE
    assert "does not reach tier 3" in bundle(UNPROVEN, BLACKWELL)[1]


def test_each_architecture_has_its_tier() -> None:
    examine = appraisal._examine(Platform.NVIDIA)
    tiers = {chip: examine(mint.device(chip).files(), _context()) for chip in ("GH100", "GB100", "GB202", "LS_10")}
    assert {chip: (found.tier, found.tiered) for chip, found in tiers.items()} == {
        "GH100": HOPPER,
        "GB100": BLACKWELL,
        "GB202": BLACKWELL,
        "LS_10": SWITCH,
    }
    assert all(found.tier_why for found in tiers.values())
    assert len({found.identity for found in tiers.values()}) == len(tiers)


def test_identity_is_the_chips_whatever_its_firmware() -> None:
    gpu = mint.device()
    again = issue(gpu.chain[0].certificate.subject, gpu.chain[1])
    updated = mint.Device(gpu.chip, (again, *gpu.chain[1:]), fields={3: b"1"})
    examine = appraisal._examine(Platform.NVIDIA)
    found = [examine(each.files(), _context()).identity for each in (gpu, updated)]
    assert found[0] == found[1] == f"GH100:{gpu.chain[1].certificate.serial_number:X}"


def test_a_bundle_of_two_gpus_answers_one_nonce() -> None:
    pair = [Evidence(Platform.NVIDIA, mint.device().files(**mint.rims())) for _ in range(2)]
    result = appraise(pair, policy(freshness=True, **LENIENT), {}, NOW_MS, nonce=mint.NONCE, anchors=mint.ANCHORS)
    assert result.verdict == "accept"
    assert outcome(result, "nvidia.distinct") is True
    assert len(result.claims["nvidia"]) == 2


def test_minted_evidence_is_nothing_to_the_product() -> None:
    result = judged(mint.device().files(**mint.rims()), anchors=())
    assert result.verdict == "reject"
    assert set(result.reasons) == {
        "nvidia.chain.root",
        "nvidia.driver_rim.chain.root",
        "nvidia.vbios_rim.chain.root",
    }


def test_reference_values_that_cannot_be_read_leave_nothing_to_compare_with() -> None:
    result = judged(mint.device().files(driver_rim=b"<", vbios_rim=b"<"), nonce=mint.NONCE)
    assert outcome(result, "nvidia.measurements") is None
    assert (result.verdict, result.authentic) == ("reject", False)
