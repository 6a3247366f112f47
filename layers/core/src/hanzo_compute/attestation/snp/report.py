"""The attestation report: 1184 bytes, of which the first 672 are signed (AMD 56860, table 23 and chapter 10)."""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.snp import products
from hanzo_compute.attestation.snp.products import Line

SIZE: Final = 1184
SIGNED: Final = 0x2A0
VERSIONS: Final = (2, 3, 4, 5)
ECDSA_P384_SHA384: Final = 1
SIGNING_KEYS: Final = {0: "VCEK", 1: "VLEK", 7: "NONE"}
_SCALAR: Final = 48
_PADDING: Final = bytes(72 - _SCALAR)
_REST: Final = bytes(SIZE - SIGNED - 2 * 72)
_NO_CHIP: Final = bytes(64)
_P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
GUEST_POLICY: Final = {
    "smt": 16,
    "migrate_ma": 18,
    "debug": 19,
    "single_socket": 20,
    "cxl_allow": 21,
    "mem_aes_256_xts": 22,
    "rapl_dis": 23,
    "ciphertext_hiding_dram": 24,
    "page_swap_disable": 25,
}
"""Bits of the guest's policy (table 9). Bits 0 to 15 are the least ABI version, bit 17 is one, the rest zero."""
PLATFORM_INFO: Final = {
    "smt_en": 0,
    "tsme_en": 1,
    "ecc_en": 2,
    "rapl_dis": 3,
    "ciphertext_hiding_dram_en": 4,
    "alias_check_complete": 5,
    "iommu_write_safe": 6,
    "tio_en": 7,
}
"""Bits of what the platform says of itself (table 24)."""
# In order: the names of Report's fields up to launch_tcb, with two reserved ranges skipped.
_LAYOUT: Final = struct.Struct(
    "<IIQ16s16sII8sQI4x64s48s32s48s48s32s32s8sBBB21x64s8s4s4s8sQQ152x72s72s368s",
)


class Report(NamedTuple):
    """The fields of a report, by the names of the specification; TCB versions are 8 bytes each."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algo: int
    current_tcb: bytes
    platform_info: int
    flags: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    family: int
    model: int
    stepping: int
    chip_id: bytes
    committed_tcb: bytes
    current_version: bytes
    """Build, minor, major, and a reserved byte."""
    committed_version: bytes
    launch_tcb: bytes
    launch_mitigations: int
    current_mitigations: int
    r: bytes
    s: bytes
    rest: bytes
    """What follows the two numbers of the signature."""
    signed: bytes

    @property
    def has_cpuid(self) -> bool:
        """Whether it names the processor: version 2 did not yet."""
        return self.version >= 3

    @property
    def line(self) -> Line | None:
        """The product line of the processor that it names."""
        return products.by_cpuid(self.family, self.model) if self.has_cpuid else None

    @property
    def signing_key(self) -> str:
        """Which key it says has signed it."""
        return SIGNING_KEYS.get(self.flags >> 2 & 7, "RESERVED")

    @property
    def masked(self) -> bool:
        """Whether the host hides which chip it is."""
        return self.chip_id == _NO_CHIP

    def allows(self, bit: str) -> bool:
        """A bit of the guest's policy."""
        return bool(self.policy >> GUEST_POLICY[bit] & 1)

    def platform(self, bit: str) -> bool:
        """A bit of what the platform says of itself."""
        return bool(self.platform_info >> PLATFORM_INFO[bit] & 1)

    def signature(self) -> tuple[int, int]:
        """The two numbers of the signature, which is little-endian here.

        Raises:
            ValueError: it is not of its format. What is not signed must be zero: else one report had many forms.
        """
        if self.r[_SCALAR:] != _PADDING or self.s[_SCALAR:] != _PADDING or self.rest != _REST:
            raise ValueError("bytes of the signature's field beside the two numbers are not zero")
        r, s = (int.from_bytes(part, "little") for part in (self.r, self.s))
        if not (0 < r < _P384_ORDER and 0 < s < _P384_ORDER):
            raise ValueError("a number of the signature is zero or not below the order of P-384")
        return r, s

    def claims(self, line: Line | None) -> dict[str, Any]:
        """What it says, as JSON; TCB versions by the layout of ``line``."""
        claims: dict[str, Any] = {
            "version": self.version,
            "guest_svn": self.guest_svn,
            "policy": self.policy,
            "vmpl": self.vmpl,
            "sig_algo": self.signature_algo,
            "platform_info": self.platform_info,
            "author_key_en": self.flags & 1,
            "mask_chip_key": self.flags >> 1 & 1,
            "signing_key": self.signing_key,
            "cpuid": [self.family, self.model, self.stepping] if self.has_cpuid else None,
            "debug_allowed": self.allows("debug"),
            "turin": line is Line.TURIN,
            "current_version": _version(self.current_version),
            "committed_version": _version(self.committed_version),
        }
        for name in _TCB:
            claims[name] = products.components(getattr(self, name), line)
        for name in _HEX:
            claims[name] = getattr(self, name).hex()
        if self.version >= 5:
            claims["launch_mit_vector"] = self.launch_mitigations
            claims["current_mit_vector"] = self.current_mitigations
        return claims


_TCB: Final = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
_HEX: Final = (
    "family_id",
    "image_id",
    "report_data",
    "measurement",
    "host_data",
    "id_key_digest",
    "author_key_digest",
    "report_id",
    "report_id_ma",
    "chip_id",
)


def parse(data: bytes) -> Report:
    """The fields of a report.

    Raises:
        Unreadable: it has not its size.
    """
    if len(data) != SIZE:
        raise Unreadable(f"a report has {SIZE} bytes; this has {len(data)}")
    return Report._make((*_LAYOUT.unpack(data), data[:SIGNED]))


def _version(version: bytes) -> str:
    return f"{version[2]}.{version[1]}.{version[0]}"
