"""Launch digests of guests, as reference values for policies (AMD 56860, 8.17.2: the PAGE_INFO structure).

They are computed by ``sev-snp-measure`` (virtee, Apache-2.0), which knows what each virtual machine monitor puts into
a guest's first pages and registers; it comes with the extra ``attestation``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from hanzo_compute.errors import InvalidRequest

Monitor = Literal["QEMU", "ec2", "gce"]
VCPUS_MAX: Final = 1024
FEATURES: Final = 0x1
"""SEV_FEATURES of a guest with SNP and nothing else; some kernels also set bit 5, which swaps debug registers."""


def digest(
    firmware: Path,
    *,
    vcpus: int,
    vcpu: str = "EPYC-v4",
    kernel: Path | None = None,
    initrd: Path | None = None,
    cmdline: str = "",
    features: int = FEATURES,
    monitor: Monitor = "QEMU",
) -> bytes:
    """The measurement (48 bytes) of a guest that is started with these.

    Args:
        firmware: OVMF, built for SEV.
        vcpus: how many virtual processors it starts with; each adds to the measurement.
        vcpu: their model, by QEMU's name.
        kernel: of a direct boot, for which the firmware must hold a place for hashes.
        initrd: of a direct boot.
        cmdline: of a direct boot.
        features: SEV_FEATURES in the processors' save areas.
        monitor: which virtual machine monitor starts it.

    Raises:
        InvalidRequest: a file is not there, the firmware is not for SEV-SNP, or there is no such model.
    """
    from sevsnpmeasure import guest, vcpu_types
    from sevsnpmeasure.sev_mode import SevMode
    from sevsnpmeasure.vmm_types import VMMType

    if not 1 <= vcpus <= VCPUS_MAX:
        raise InvalidRequest(f"a guest has 1 to {VCPUS_MAX} virtual processors")
    if vcpu not in vcpu_types.CPU_SIGS:
        raise InvalidRequest(f"there is no model {vcpu!r}", hint=f"there are {', '.join(vcpu_types.CPU_SIGS)}")
    if kernel is None and (initrd or cmdline):
        raise InvalidRequest("an initrd or a command line is measured only with a kernel")
    try:
        found: bytes = guest.calc_launch_digest(
            SevMode.SEV_SNP,
            vcpus,
            vcpu_types.CPU_SIGS[vcpu],
            str(firmware),
            str(kernel or ""),
            str(initrd or ""),
            cmdline,
            features,
            vmm_type=VMMType[monitor],
        )
    except OSError as error:
        raise InvalidRequest(f"a file of the guest cannot be read: {error}") from None
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        raise InvalidRequest(f"this cannot be measured for SEV-SNP: {error}") from None
    return found
