"""NVIDIA's library as nvidia-ml-py shows it, with that module's own structures, constants and errors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pynvml

CHAIN = b"-----BEGIN CERTIFICATE-----\n"


def plain(gpu: int, nonce: bytes) -> tuple[bytes, bytes]:
    """A report that has its nonce where SPDM has it, and is no other thing of a report."""
    return b"\x11\xe0\xff\x01" + nonce + bytes([gpu]) * 64, CHAIN + bytes([48 + gpu])


@dataclass
class FakeNvml:
    """The module, of a machine with ``count`` GPUs."""

    count: int = 1
    make: Callable[[int, bytes], tuple[bytes, bytes]] = plain
    """Firmware: report and certificate chain of a GPU for a nonce."""
    feature: int = pynvml.NVML_CC_SYSTEM_FEATURE_ENABLED
    devtools: int = pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF
    environment: int = pynvml.NVML_CC_SYSTEM_ENVIRONMENT_PROD
    multi_gpu: int | None = pynvml.NVML_CC_SYSTEM_MULTIGPU_NONE
    """None: a driver that knows no settings."""
    fails: dict[str, int] = field(default_factory=dict)
    """NVML's error by the function that answers it."""
    calls: list[str] = field(default_factory=list)
    ready: int = 0
    open: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        self._called("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        self._called("nvmlDeviceGetCount")
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._called("nvmlDeviceGetHandleByIndex")
        return index

    def nvmlSystemGetConfComputeState(self) -> Any:
        self._called("nvmlSystemGetConfComputeState")
        state = pynvml.c_nvmlConfComputeSystemState_t()
        state.environment, state.ccFeature, state.devToolsMode = self.environment, self.feature, self.devtools
        return state

    def nvmlSystemGetConfComputeSettings(self, reference: Any) -> int:
        if self.multi_gpu is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        settings = reference._obj
        assert settings.version == ctypes.sizeof(settings) | 1 << 24
        settings.multiGpuMode = self.multi_gpu
        return int(pynvml.NVML_SUCCESS)

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, device: int, nonce: bytes) -> Any:
        self._called("nvmlDeviceGetConfComputeGpuAttestationReport")
        answer = pynvml.c_nvmlConfComputeGpuAttestationReport_t()
        answer.nonce = (ctypes.c_uint8 * len(nonce))(*nonce)
        report, _ = self.make(device, bytes(answer.nonce))
        answer.attestationReportSize = len(report)
        ctypes.memmove(answer.attestationReport, report, len(report))
        return answer

    def nvmlDeviceGetConfComputeGpuCertificate(self, device: int) -> Any:
        self._called("nvmlDeviceGetConfComputeGpuCertificate")
        answer = pynvml.c_nvmlConfComputeGpuCertificate_t()
        _, chain = self.make(device, bytes(32))
        answer.attestationCertChainSize = len(chain)
        ctypes.memmove(answer.attestationCertChain, chain, len(chain))
        return answer

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int) -> None:
        self._called("nvmlSystemSetConfComputeGpusReadyState")
        self.ready = state

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise pynvml.NVMLError(self.fails[name])


def modes() -> Iterator[tuple[dict[str, int], str]]:
    """Modes in which evidence is worth nothing, and the words that say so."""
    yield {"count": 0}, "there is no GPU"
    yield {"feature": pynvml.NVML_CC_SYSTEM_FEATURE_DISABLED}, "confidential computing is off"
    yield {"devtools": pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_ON}, "devtools mode is on"
    yield {"environment": pynvml.NVML_CC_SYSTEM_ENVIRONMENT_SIM}, "not that of production"
    yield {"environment": pynvml.NVML_CC_SYSTEM_ENVIRONMENT_UNAVAILABLE}, "not that of production"
