"""What of this machine could give evidence, what is missing, and what would be the remedy. It looks, and does nothing.

What is looked at: device files and whether this user may use them, modules that are loaded, how the kernel was
built (``/boot/config-*``, ``/proc/config.gz``), flags of the processor, configfs.

The files of guests of SEV-SNP, TDX and Nitro were never seen on a real one: they are those of the kernel's sources.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.attester import nvml
from hanzo_compute.adapters.attester.tpm_tools import DEVICE_TCTI, missing_tools
from hanzo_compute.errors import ComputeError
from hanzo_compute.model.evidence import Platform
from hanzo_compute.ports.attesters import Found, Missing

TSM: Final = "sys/kernel/config/tsm/report"
_CONFIG_MAX: Final = 4 * 1024 * 1024


class Machine:
    """The files of a machine, below a root: ``/`` of the real one."""

    def __init__(self, root: Path = Path("/"), *, release: str | None = None) -> None:
        self.root = root
        self.release = release or os.uname().release

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        with suppress(OSError):
            return (self.root / path).exists()
        return False

    def usable(self, path: str) -> bool:
        """Whether this user may read and write it."""
        return os.access(self.root / path, os.R_OK | os.W_OK)

    def text(self, path: str) -> str:
        """A small file; empty if it cannot be read."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(_CONFIG_MAX).decode("utf-8", "replace")
        except OSError:
            return ""

    @cached_property
    def cpu_flags(self) -> frozenset[str]:
        """Flags of the first processor."""
        found = re.search(r"^flags\s*:(.*)$", self.text("proc/cpuinfo"), re.MULTILINE)
        return frozenset(found[1].split()) if found else frozenset()

    @cached_property
    def options(self) -> dict[str, str] | None:
        """How the kernel was built: ``y`` or ``m`` by option; None if that is not to be found out."""
        text = self.text(f"boot/config-{self.release}")
        if not text:
            with suppress(OSError, EOFError, zlib.error), gzip.open(self.root / "proc/config.gz") as file:
                text = file.read(_CONFIG_MAX).decode("utf-8", "replace")
        if not text:
            return None
        return dict(re.findall(r"^(CONFIG_\w+)=([ym])$", text, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class _Driver:
    """What a source of evidence needs of the kernel."""

    name: str
    platform: Platform | None
    device: str
    module: str
    option: str
    needs: str
    """Which machine has it."""


_SNP: Final = _Driver(
    "SEV-SNP guest", Platform.SNP, "dev/sev-guest", "sev_guest", "CONFIG_SEV_GUEST", "a guest of AMD SEV-SNP"
)
_TDX: Final = _Driver(
    "TDX guest", Platform.TDX, "dev/tdx_guest", "tdx_guest", "CONFIG_TDX_GUEST_DRIVER", "a guest of Intel TDX"
)
_NSM: Final = _Driver("Nitro Enclave", Platform.NITRO, "dev/nsm", "nsm", "CONFIG_NSM", "an enclave of AWS Nitro")
_TPM: Final = _Driver("TPM", Platform.TPM, "dev/tpmrm0", "tpm", "CONFIG_TCG_TPM", "a machine with a TPM 2.0")
_KVM: Final = _Driver(
    "KVM", None, "dev/kvm", "kvm", "CONFIG_KVM", "a processor with virtualization (nested, in a guest)"
)


def detect(
    machine: Machine | None = None,
    *,
    tcti: str = DEVICE_TCTI,
    gpus: Callable[[], nvml.State] = nvml.state,
) -> Sequence[Found]:
    """What is here: SEV-SNP, TDX, Nitro, NVIDIA GPUs, a TPM, KVM; in this order, each whether it is here or not."""
    at = machine or Machine()
    return (_snp(at), _tdx(at), _kernel(at, _NSM), _nvidia(at, gpus), _tpm(at, tcti), _kvm(at))


def _kernel(at: Machine, driver: _Driver, more: Iterable[Missing] = (), **facts: str) -> Found:
    """What is to be said of one driver, with its device file."""
    there, usable = at.has(driver.device), at.usable(driver.device)
    said = {
        f"/{driver.device}": "usable" if usable else "not for this user" if there else "not there",
        "module": f"{driver.module} is loaded" if at.has(f"sys/module/{driver.module}") else "not loaded",
        "kernel": _built(at, driver.option),
    } | facts
    missing = [*_why_not(at, driver, there, usable), *more]
    summary = missing[0].why if missing else f"/{driver.device}"
    return Found(driver.name, driver.platform, not missing, summary, said, tuple(missing))


def _why_not(at: Machine, driver: _Driver, there: bool, usable: bool) -> list[Missing]:
    device = f"/{driver.device}"
    if usable:
        return []
    if there:
        return [
            Missing(device, "not accessible to this user", f"run as root, or let this user read and write {device}")
        ]
    options = at.options
    if options is not None and driver.option not in options:
        text = f"this kernel was built without {driver.option}"
        return [Missing(driver.option, text, f"{driver.needs}, with a kernel that has it")]
    if options is not None and options[driver.option] == "m" and not at.has(f"sys/module/{driver.module}"):
        name = driver.module.replace("_", "-")
        return [Missing(device, "not there; its module is not loaded", f"modprobe {name}; it takes {driver.needs}")]
    return [Missing(device, "not there", f"it takes {driver.needs}")]


def _built(at: Machine, option: str) -> str:
    if at.options is None:
        return f"{option}: not known"
    return f"{option}={at.options.get(option, 'n')}"


def _snp(at: Machine) -> Found:
    """By configfs-tsm where the kernel has it, else by the device itself."""
    vmpl = at.text("sys/devices/system/cpu/sev/vmpl").strip()
    facts = _tsm_facts(at) | {"vmpl": vmpl or "not told: no guest of SEV-SNP, or a kernel before 6.11"}
    if vmpl and at.usable(TSM):
        return Found(_SNP.name, _SNP.platform, True, "configfs-tsm", facts)
    return _kernel(at, _SNP, _tsm_access(at), **facts)


def _tdx(at: Machine) -> Found:
    """The device gives a TDREPORT, which only this machine can check: a quote takes configfs-tsm."""
    inside = "tdx_guest" in at.cpu_flags
    facts = _tsm_facts(at) | {"cpu": "tdx_guest" if inside else "no tdx_guest"}
    if inside and at.usable(TSM):
        return Found(_TDX.name, _TDX.platform, True, "configfs-tsm", facts)
    more = list(_tsm_access(at))
    if not at.has(TSM) and at.has(_TDX.device):
        why = "/dev/tdx_guest alone gives no quote: that takes configfs-tsm, and it is not there"
        more.append(Missing(f"/{TSM}", why, _tsm_remedy(at)))
    return _kernel(at, _TDX, more, **facts)


def _tsm_facts(at: Machine) -> dict[str, str]:
    return {"configfs-tsm": "usable" if at.usable(TSM) else "not for this user" if at.has(TSM) else "not there"}


def _tsm_access(at: Machine) -> Iterable[Missing]:
    if at.has(TSM) and not at.usable(TSM):
        yield Missing(f"/{TSM}", "configfs-tsm is there, and not for this user", "run as root")


def _tsm_remedy(at: Machine) -> str:
    if not at.has("sys/kernel/config/tsm"):
        if "configfs" not in at.text("proc/filesystems"):
            return "a kernel with CONFIG_CONFIGFS_FS and CONFIG_TSM_REPORTS (Linux 6.7 or later)"
        if not at.has("sys/kernel/config"):
            return "mount -t configfs none /sys/kernel/config"
    return "modprobe tdx-guest, on Linux 6.7 or later with CONFIG_TSM_REPORTS; is configfs mounted?"


def _nvidia(at: Machine, gpus: Callable[[], nvml.State]) -> Found:
    version = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", at.text("proc/driver/nvidia/version"))
    library = find_spec("pynvml") is not None
    facts = {"driver": version[1] if version else "not loaded", "nvidia-ml-py": "installed" if library else "missing"}
    name = "NVIDIA GPU"
    if not version:
        missing = Missing("driver", "no driver of NVIDIA is loaded", "it takes a GPU in confidential-computing mode")
        return Found(name, Platform.NVIDIA, False, missing.why, facts, (missing,))
    try:
        state = gpus()
    except ComputeError as error:
        missing = Missing("NVML", error.message, error.hint or "nvidia-smi conf-compute -q")
        return Found(name, Platform.NVIDIA, False, missing.why, facts, (missing,))
    facts |= {
        "gpus": str(state.gpus),
        "confidential computing": "on" if state.confidential else "off",
        "devtools": "on" if state.devtools else "off",
        "environment": "production" if state.production else "not production",
    }
    if problem := state.problem():
        missing = Missing("mode", problem, "set the mode with nvidia_gpu_admin_tools on the host, and reset the GPU")
        return Found(name, Platform.NVIDIA, False, problem, facts, (missing,))
    return Found(name, Platform.NVIDIA, True, f"{state.gpus} in confidential-computing mode", facts)


def _tpm(at: Machine, tcti: str) -> Found:
    """A TPM that was named otherwise than by its device is not looked for: it is what the operator says."""
    tools = missing_tools()
    more = [Missing(tools[0], f"{tools[0]} is not installed", "install tpm2-tools (5.0 or newer)")] if tools else []
    facts = {"tcti": tcti, "tpm2-tools": "missing" if tools else "installed"}
    if tcti != DEVICE_TCTI:
        summary = more[0].why if more else tcti
        return Found(_TPM.name, Platform.TPM, not more, summary, facts, tuple(more))
    version = at.text("sys/class/tpm/tpm0/tpm_version_major").strip()
    if version == "1":
        more.insert(0, Missing("TPM 2.0", "it is a TPM 1.2", f"it takes {_TPM.needs}"))
    return _kernel(at, _TPM, more, **facts, **({"version": version} if version else {}))


def _kvm(at: Machine) -> Found:
    flag = next((each for each in ("vmx", "svm") if each in at.cpu_flags), "neither vmx nor svm")
    return _kernel(at, _KVM, cpu=flag)
