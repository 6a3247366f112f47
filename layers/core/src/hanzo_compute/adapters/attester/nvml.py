"""Evidence of NVIDIA GPUs in confidential-computing mode, through the driver's library (nvidia-ml-py).

By NVIDIA's NVML reference, confidential computing: the report is an SPDM GET_MEASUREMENTS exchange over the nonce.
A GPU takes no work until its ready state is set; that is :func:`set_ready`, which nothing here calls by itself: it
belongs after an appraisal.

Run against a stand-in of the library, with its own structures; never with a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest
from hanzo_compute.model.evidence import Evidence, Platform

NONCE: Final = 32
_PROD: Final = 2
_PROTECTED_PCIE: Final = 1
_NONCE_AT: Final = 4
"""Where SPDM's GET_MEASUREMENTS request, with which a report begins, has its nonce."""


@dataclass(frozen=True, slots=True)
class State:
    """The mode of this machine's GPUs, as the driver says it: a report proves it, this does not."""

    gpus: int
    confidential: bool
    """Confidential computing is on, or protected PCIe, its form for eight GPUs in one guest."""
    devtools: bool
    """Whether debuggers and profilers may look into the GPUs."""
    production: bool
    """Not a simulation."""

    def problem(self) -> str:
        """Why evidence would be worth nothing; empty if that is not so."""
        if not self.gpus:
            return "there is no GPU"
        if not self.confidential:
            return "confidential computing is off"
        if self.devtools:
            return "devtools mode is on: debuggers may look into the GPUs"
        return "" if self.production else "its environment is not that of production"


def library() -> Any:
    """The module of nvidia-ml-py.

    Raises:
        EvidenceUnavailable: it is not installed.
    """
    try:
        return import_module("pynvml")
    except ImportError as error:
        raise EvidenceUnavailable("nvidia-ml-py is not installed", hint="pip install nvidia-ml-py") from error


def state(nvml: Any = None) -> State:
    """The mode of the GPUs. Raises EvidenceUnavailable."""
    nvml = nvml or library()
    with _session(nvml):
        return _state(nvml)


def collect(nonce: bytes, nvml: Any = None) -> list[Evidence]:
    """The report and the certificate chain of each GPU, in the driver's order.

    Raises:
        InvalidRequest: the nonce has not 32 bytes.
        EvidenceUnavailable: the GPUs are in a mode in which evidence is worth nothing, or the driver gives none.
    """
    if len(nonce) != NONCE:
        raise InvalidRequest(f"the nonce of a GPU has {NONCE} bytes, not {len(nonce)}")
    nvml = nvml or library()
    with _session(nvml):
        found = _state(nvml)
        if problem := found.problem():
            raise EvidenceUnavailable(
                f"no evidence of the GPUs: {problem}", hint="set the mode with nvidia_gpu_admin_tools, on the host"
            )
        return [_evidence(nvml, index, nonce) for index in range(found.gpus)]


def set_ready(nvml: Any = None, *, ready: bool = True) -> None:
    """Let the GPUs take work, or not: for after their evidence was accepted. Raises EvidenceUnavailable."""
    nvml = nvml or library()
    with _session(nvml):
        nvml.nvmlSystemSetConfComputeGpusReadyState(int(ready))


@contextmanager
def _session(nvml: Any) -> Iterator[None]:
    try:
        nvml.nvmlInit()
        try:
            yield
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise EvidenceUnavailable(f"NVIDIA's driver says: {error}", hint="nvidia-smi conf-compute -q") from error


def _state(nvml: Any) -> State:
    count = int(nvml.nvmlDeviceGetCount())
    if not count:
        return State(0, confidential=False, devtools=False, production=False)
    system = nvml.nvmlSystemGetConfComputeState()
    on = system.ccFeature == nvml.NVML_CC_SYSTEM_FEATURE_ENABLED or _protected_pcie(nvml)
    off = system.devToolsMode == nvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF
    return State(count, confidential=on, devtools=not off, production=system.environment == _PROD)


def _protected_pcie(nvml: Any) -> bool:
    settings = nvml.c_nvmlSystemConfComputeSettings_v1_t()
    try:
        # It returns a code, instead of raising as the others do.
        code = nvml.nvmlSystemGetConfComputeSettings(ctypes.byref(settings))
    except nvml.NVMLError:  # a driver that does not have the function
        return False
    if code != nvml.NVML_SUCCESS:
        return False
    return bool(settings.multiGpuMode == _PROTECTED_PCIE)


def _evidence(nvml: Any, index: int, nonce: bytes) -> Evidence:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    answer = nvml.nvmlDeviceGetConfComputeGpuAttestationReport(device, nonce)
    report = bytes(answer.attestationReport[: answer.attestationReportSize])
    if report[_NONCE_AT : _NONCE_AT + NONCE] != nonce:
        raise EvidenceUnavailable(f"the driver gives a report of GPU {index} that answers another nonce")
    certificates = nvml.nvmlDeviceGetConfComputeGpuCertificate(device)
    chain = bytes(certificates.attestationCertChain[: certificates.attestationCertChainSize]).rstrip(b"\0")
    if not chain:
        raise EvidenceUnavailable(f"the driver gives no certificates of GPU {index}")
    return Evidence(Platform.NVIDIA, {"report": report, "chain": chain})
