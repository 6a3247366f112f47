"""Evidence of GPUs, through a stand-in of NVIDIA's library."""

from __future__ import annotations

import sys
from typing import Any

import pynvml
import pytest

from hanzo_compute.adapters.attester import nvml
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest
from hanzo_compute.model.evidence import Platform
from tests.support.fake_nvml import FakeNvml, modes, plain

NONCE = bytes(range(32))


def test_each_gpu_once() -> None:
    library = FakeNvml(count=3)
    found = nvml.collect(NONCE, library)
    assert [each.platform for each in found] == [Platform.NVIDIA] * 3
    assert [(each.files["report"], each.files["chain"]) for each in found] == [plain(gpu, NONCE) for gpu in range(3)]
    assert (library.open, library.ready) == (0, 0)


def test_the_filling_of_a_chain_is_cut() -> None:
    library = FakeNvml(make=lambda gpu, nonce: (plain(gpu, nonce)[0], b"chain\n\0\0"))
    assert nvml.collect(NONCE, library)[0].files["chain"] == b"chain\n"


@pytest.mark.parametrize(("mode", "why"), list(modes()))
def test_modes_in_which_evidence_is_worth_nothing(mode: dict[str, int], why: str) -> None:
    library = FakeNvml(**mode)  # type: ignore[arg-type]
    with pytest.raises(EvidenceUnavailable, match=why):
        nvml.collect(NONCE, library)
    assert why in nvml.state(library).problem()
    assert "nvmlDeviceGetConfComputeGpuAttestationReport" not in library.calls
    assert library.open == 0


@pytest.mark.parametrize(
    ("multi_gpu", "works"),
    [
        (pynvml.NVML_CC_SYSTEM_MULTIGPU_PROTECTED_PCIE, True),
        (pynvml.NVML_CC_SYSTEM_MULTIGPU_NONE, False),
        (None, False),
    ],
)
def test_protected_pcie(multi_gpu: int | None, works: bool) -> None:
    library = FakeNvml(feature=pynvml.NVML_CC_SYSTEM_FEATURE_DISABLED, multi_gpu=multi_gpu)
    assert nvml.state(library).confidential is works


def test_a_stale_report_is_noticed() -> None:
    library = FakeNvml(make=lambda gpu, _nonce: plain(gpu, bytes(32)))
    with pytest.raises(EvidenceUnavailable, match="answers another nonce"):
        nvml.collect(NONCE, library)


def test_a_gpu_without_certificates() -> None:
    with pytest.raises(EvidenceUnavailable, match="no certificates of GPU 0"):
        nvml.collect(NONCE, FakeNvml(make=lambda gpu, nonce: (plain(gpu, nonce)[0], b"")))


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("nvmlInit", pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "NVML Shared Library Not Found"),
        ("nvmlInit", pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"),
        ("nvmlSystemGetConfComputeState", pynvml.NVML_ERROR_NOT_SUPPORTED, "Not Supported"),
        ("nvmlDeviceGetConfComputeGpuAttestationReport", pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"),
    ],
)
def test_errors_of_the_driver(function: str, code: int, why: str) -> None:
    library = FakeNvml(fails={function: code})
    with pytest.raises(EvidenceUnavailable, match=why):
        nvml.collect(NONCE, library)
    assert library.open == 0


def test_gpus_are_made_ready_only_when_that_is_asked_for() -> None:
    library = FakeNvml()
    nvml.collect(NONCE, library)
    assert library.ready == 0
    nvml.set_ready(library)
    assert library.ready == 1
    nvml.set_ready(library, ready=False)
    assert library.ready == 0


def test_a_nonce_has_32_bytes() -> None:
    with pytest.raises(InvalidRequest):
        nvml.collect(bytes(31), FakeNvml())


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(EvidenceUnavailable, match="not installed"):
        nvml.library()


def test_the_real_library_on_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    with pytest.raises(EvidenceUnavailable, match="Not Found"):
        nvml.state()
