"""What evidence says, by name: for policies to be written after, and for reference values to be fetched by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hanzo_compute.attestation.nvidia.device import Device, rim_ids
from hanzo_compute.attestation.nvidia.rim import Rim
from hanzo_compute.attestation.nvidia.spdm import SIGNATURE_SIZE, Field, Report
from hanzo_compute.attestation.x509 import Cert

_TEXT: Final = {
    "opaque_chip_sku": Field.CHIP_SKU,
    "opaque_project": Field.PROJECT,
    "opaque_project_sku": Field.PROJECT_SKU,
    "opaque_driver": Field.DRIVER_VERSION,
    "opaque_chip_info": Field.CHIP_INFO,
}
_BYTES: Final = {
    "opaque_vbios": Field.VBIOS_VERSION,
    "opaque_nvdec0": Field.NVDEC0_STATUS,
    "opaque_fwid": Field.FWID,
    "opaque_ppcie": Field.PROTECTED_PCIE,
    "opaque_opaque_ver": Field.OPAQUE_VERSION,
    "opaque_feature": Field.FEATURE_FLAG,
}


def claims(report: Report, found: Device, chain: Sequence[Cert]) -> dict[str, Any]:
    """What a report and its chain say; what they leave out is left out."""
    request, response = report.signed[:4], report.signed[37:43]
    said: dict[str, Any] = {
        "req_nonce": report.nonce.hex(),
        "req_ver": request[0],
        "req_code": f"{request[1]:#x}",
        "param1": request[2],
        "param2": request[3],
        "resp_ver": response[0],
        "resp_code": f"{response[1]:#x}",
        "nblocks": response[4],
        "resp_nonce": report.response_nonce.hex(),
        "siglen": SIGNATURE_SIZE,
        "n_meas": len(report.measurements),
        "leaf": chain[0].subject,
        "l2": chain[-2].subject if len(chain) > 1 else None,
        "chip": found.chip,
        "architecture": found.architecture,
        "identity": found.identity,
        "driver": found.driver,
        "vbios": found.vbios,
        "mode": None if found.is_switch else found.mode,
        "rim_ids": rim_ids(report, found),
        "measurements": {str(index): value.hex() for index, value in sorted(report.measurements.items())},
    }
    said |= {name: report.text(field) for name, field in _TEXT.items()}
    said |= {name: report.opaque[field].hex() for name, field in _BYTES.items() if field in report.opaque}
    return {name: value for name, value in said.items() if value is not None}


def rim_claims(read: Rim) -> dict[str, Any]:
    """What reference values say that they are."""
    return {
        "product": read.product,
        "version": read.version,
        "signer": read.certificates[0].subject,
        "not_after": read.certificates[0].end.isoformat(),
        "golden": len(read.golden),
    }
