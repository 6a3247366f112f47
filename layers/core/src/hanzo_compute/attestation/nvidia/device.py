"""Which device a report is of: what its certificates and its opaque data say, before any of it is believed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nvidia.dice import Firmware, firmware
from hanzo_compute.attestation.nvidia.policy import Architecture, Mode
from hanzo_compute.attestation.nvidia.spdm import Field, Report
from hanzo_compute.attestation.x509 import Cert

CHAIN_LENGTH: Final = 5
"""Certificates: of the firmware's key, of the chip, of who provisioned it, of the product, and the root."""
_NAMED: Final = 3
"""Certificates, from the first, whose names have the chip; the product's is shared between products."""
_CHIP: Final = re.compile(r"\b(GH1|GB[12]|LS_?1)[0-9]{1,2}\b")
_ARCHITECTURES: Final[dict[str, Architecture]] = {"GH1": "hopper", "GB1": "blackwell", "GB2": "blackwell"}
_MODES: Final[dict[int, Mode]] = {0: "single", 1: "multi", 2: "protected_pcie"}
_SWITCH_RIM: Final = "NV_SWITCH_BIOS_5612_0002_890"
_VBIOS_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class Device:
    """What a device is by its own words and those of its certificates."""

    chip: str | None
    """As in reference values: ``GH100``, ``GB100``, ``LS10``."""
    architecture: Architecture | None
    """None of a chip that is not known here, or where certificates disagree."""
    identity: str | None
    """Of the chip, whatever firmware runs on it: the serial number of the certificate that NVIDIA issued to it."""
    firmware: Firmware
    driver: str | None
    vbios: str | None
    """As in reference values: ``96.00.9F.00.01``."""
    mode: Mode | None
    """Of a GPU; None of one that is not known here."""

    @property
    def is_switch(self) -> bool:
        """Whether it is a switch between GPUs, which has no driver of its own."""
        return self.architecture == "nvswitch"


def device(report: Report, chain: Sequence[Cert]) -> Device:
    """Read it from a report and its chain, leaf first.

    Raises:
        Unreadable: the leaf says something of its firmware that cannot be read.
    """
    chips = [found.group() for each in chain[:_NAMED] if (found := _CHIP.search(each.common_name))]
    architectures = {_architecture(chip) for chip in chips}
    architecture = architectures.pop() if len(architectures) == 1 else None
    chip = report.text(Field.CHIP_INFO) or (chips[0].replace("_", "") if chips else None)
    try:
        runs = firmware(chain[0])
    except ValueError as error:
        raise Unreadable(f"the device's certificate: {error}") from None
    identity = f"{chips[0]}:{chain[1].loaded.serial_number:X}" if chips and len(chain) > 1 else None
    is_switch = architecture == "nvswitch"
    vbios = report.text(Field.VBIOS_VERSION) if is_switch else _vbios(report.opaque.get(Field.VBIOS_VERSION))
    flag = report.number(Field.FEATURE_FLAG)
    mode = "single" if flag is None else _MODES.get(flag)
    return Device(chip, architecture, identity, runs, report.text(Field.DRIVER_VERSION), vbios, mode)


def rim_ids(report: Report, found: Device) -> dict[str, str]:
    """Under which names NVIDIA's service has the reference values of a device, by the name of their file here."""
    ids = {}
    version = (found.vbios or "").replace(".", "").upper()
    if found.is_switch:
        return {"vbios_rim": f"{_SWITCH_RIM}_{version}"} if version else {}
    if found.driver and found.chip:
        prefix = "NV_GPU_DRIVER" if found.architecture == "hopper" else "NV_GPU_CC_DRIVER"
        ids["driver_rim"] = f"{prefix}_{found.chip}_{found.driver}"
    board = [report.text(field) for field in (Field.PROJECT, Field.PROJECT_SKU, Field.CHIP_SKU)]
    if version and all(board):
        ids["vbios_rim"] = "_".join(("NV_GPU_VBIOS", *(part.upper() for part in board if part), version))
    return ids


def _architecture(chip: str) -> Architecture:
    return _ARCHITECTURES.get(chip[:3], "nvswitch")


def _vbios(value: bytes | None) -> str | None:
    """A GPU's: four bytes, the most significant last, and a fifth."""
    if value is None or len(value) != _VBIOS_SIZE:
        return None
    return value[3::-1].hex(".").upper() + f".{value[4]:02X}"
