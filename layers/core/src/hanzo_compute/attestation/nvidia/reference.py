"""Reference values next to a report: are they genuine, are they of what runs there, and is it what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.nvidia import rim, roots
from hanzo_compute.attestation.nvidia.device import Device
from hanzo_compute.attestation.nvidia.rim import Rim
from hanzo_compute.attestation.nvidia.spdm import Field, Report
from hanzo_compute.attestation.pins import NVIDIA_RIM
from hanzo_compute.attestation.x509 import Cert

SPEC: Final = "TCG Reference Integrity Manifest Information Model 1.01"
_NVDEC0_INDEX: Final = 35
_NVDEC0_DISABLED: Final = b"\x55"


@dataclass(frozen=True, slots=True)
class Expected:
    """Reference values that a device needs."""

    name: str
    """Of the file: ``driver_rim`` or ``vbios_rim``."""
    version: str | None
    """That the report states."""


def needed(device: Device) -> tuple[Expected, ...]:
    """Which a device needs: a switch has no driver."""
    vbios = Expected("vbios_rim", device.vbios)
    return (vbios,) if device.is_switch else (Expected("driver_rim", device.driver), vbios)


def chosen(files: Mapping[str, bytes], expected: Expected, device: Device) -> bytes | None:
    """The file that is meant for a device: ``<name>`` or ``<name>-*``, by what it says that it is of.

    Of several devices each finds its own; where none fits, the first is judged, and refused.
    """
    found = [files[name] for name in sorted(files) if name == expected.name or name.startswith(f"{expected.name}-")]
    for data in found:
        try:
            if _fits(rim.parse(data), expected.version, device):
                return data
        except Unreadable:
            continue
    return found[0] if found else None


def genuine(findings: Findings, name: str, data: bytes, context: Context) -> Rim | None:
    """Check that reference values are NVIDIA's (``nvidia.<name>.*``); None if they cannot be read."""
    prefix = f"nvidia.{name}"
    try:
        read = rim.parse(data)
    except Unreadable as error:
        findings.check(f"{prefix}.format", Group.GENUINE, False, str(error), source=SPEC)
        return None
    findings.check(f"{prefix}.format", Group.GENUINE, True, "a signed SWID tag with measurements", source=SPEC)
    text = "the document is what its signature names" if read.digest_ok else "the document was changed after signing"
    findings.check(f"{prefix}.digest", Group.GENUINE, read.digest_ok, text, source="XML Signature 1.1 section 3.2.1")
    text = "signed by the first certificate" if read.signature_ok else "not signed by the first certificate"
    findings.check(
        f"{prefix}.signature", Group.GENUINE, read.signature_ok, text, source="XML Signature 1.1 section 3.2.2"
    )
    chain = chains.judge(certificates(read, context), now_ms=context.now_ms, pins=NVIDIA_RIM, anchors=context.anchors)
    chain.record(findings, f"{prefix}.chain", what="the chain of the reference values", source="RFC 5280 section 6")
    return read


def certificates(read: Rim, context: Context) -> tuple[Cert, ...]:
    """The chain of reference values, with its root."""
    return roots.completed(read.certificates, roots.RIM, context.anchors)


def matches(findings: Findings, expected: Expected, read: Rim, device: Device) -> None:
    """Check that reference values are of the version and the chip that the report states."""
    prefix = f"nvidia.{expected.name}"
    ok = _same(read.version, expected.version)
    text = "of the version that runs" if ok else "of another version than runs"
    findings.check(
        f"{prefix}.version", Group.MEASURED, ok, text, expected=read.version, actual=expected.version, source=SPEC
    )
    ok = _same(read.product, device.chip)
    text = "of the chip" if ok else "of another chip"
    findings.check(
        f"{prefix}.product", Group.MEASURED, ok, text, expected=read.product, actual=device.chip, source=SPEC
    )


def absent(findings: Findings, expected: Expected, context: Context) -> None:
    """Say that reference values are not there."""
    findings.check(
        f"nvidia.{expected.name}.version",
        Group.MEASURED,
        None,
        f"no reference values of version {expected.version} are there to compare with",
        actual=expected.version,
        source="policy: require.measurement",
        required=context.policy.require.measurement,
        missing=expected.name,
    )


def compare(findings: Findings, report: Report, rims: Sequence[Rim], missing: Sequence[str], context: Context) -> None:
    """Compare what was measured with the reference values at hand; ``missing`` are those that are not."""
    source = "NVIDIA reference values: index i is block i + 1"
    if not rims:
        text = "there are no reference values to compare the measurements with"
        required = context.policy.require.measurement
        # Some may be there that cannot be read: then none is missing.
        wanted = missing[0] if missing else None
        findings.check(
            "nvidia.measurements", Group.MEASURED, None, text, source=source, required=required, missing=wanted
        )
        return
    golden: dict[int, frozenset[bytes]] = {}
    conflicts: set[int] = set()
    for read in rims:
        conflicts |= golden.keys() & read.golden.keys()
        golden |= read.golden
    text = f"driver and VBIOS both give values for {_listed(conflicts)}" if conflicts else "each index has one source"
    findings.check("nvidia.rim_conflict", Group.MEASURED, not conflicts, text, source=source)
    different = {index for index, values in golden.items() if report.measurements.get(index + 1) not in values}
    # The measurement of a decoder that is switched off means nothing, and NVIDIA's own verifiers leave it out.
    if report.opaque.get(Field.NVDEC0_STATUS) == _NVDEC0_DISABLED:
        different.discard(_NVDEC0_INDEX)
    if different or not golden:
        text = f"measured is something else at {_listed(different)}" if different else "no reference value is active"
        findings.check("nvidia.measurements", Group.MEASURED, False, text, source=source)
    elif missing:
        text = f"{len(golden)} measurements are as they should be; the reference values of the rest are not there"
        required = context.policy.require.measurement
        findings.check(
            "nvidia.measurements", Group.MEASURED, None, text, source=source, required=required, missing=missing[0]
        )
    else:
        text = f"{len(golden)} measurements are as they should be"
        findings.check("nvidia.measurements", Group.MEASURED, True, text, source=source)


def _fits(read: Rim, version: str | None, device: Device) -> bool:
    return _same(read.version, version) and _same(read.product, device.chip)


def _same(one: str, other: str | None) -> bool:
    return other is not None and one.upper() == other.upper()


def _listed(indices: set[int]) -> str:
    shown = ", ".join(map(str, sorted(indices)[:8]))
    return f"index {shown}" + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")
