"""The section of a policy on evidence of SEV-SNP; bits are named as in the specification (AMD 56860)."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from hanzo_compute.attestation.sections import Strict

_Lower = AfterValidator(str.lower)
Digest48 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{96}$"), _Lower]
"""48 bytes, hex: a launch measurement, or SHA-384 of a public key."""
Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$"), _Lower]
Hex16 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$"), _Lower]
Svn = Annotated[int, Field(ge=0, le=255)]
Asked = bool | None


class Bits(Strict):
    """Bits that are asked for."""

    @cached_property
    def asked(self) -> tuple[tuple[str, bool], ...]:
        """Those that must have a value, and which."""
        return tuple((name, value) for name, value in self if isinstance(value, bool))


class GuestBits(Bits):
    """What the guest's own policy must say: true or false, or null for either.

    That it allows no debugging cannot be waived: a guest that its host may debug keeps nothing from it.
    """

    migrate_ma: Asked = Field(default=False, description="It may be associated with a migration agent.")
    cxl_allow: Asked = Field(default=False, description="It may use memory that is attached by CXL.")
    smt: Asked = Field(default=None, description="It may run where simultaneous multithreading is on.")
    single_socket: Asked = Field(default=None, description="It runs on one socket only.")
    mem_aes_256_xts: Asked = Field(default=None, description="It wants its memory encrypted with AES-256-XTS.")
    rapl_dis: Asked = Field(default=None, description="It wants running average power limits off.")
    ciphertext_hiding_dram: Asked = Field(default=None, description="It wants ciphertext hidden from the host.")
    page_swap_disable: Asked = Field(default=None, description="It forbids that the host swaps its pages.")
    abi_major: Svn = Field(default=0, description="Least major version of the firmware's ABI that it asks for.")
    abi_minor: Svn = Field(default=0, description="Least minor version, with the same major one.")


class PlatformBits(Bits):
    """What the platform must say of itself: true or false, or null for either."""

    smt_en: Asked = Field(default=None, description="Simultaneous multithreading is on.")
    tsme_en: Asked = Field(default=None, description="All memory is encrypted.")
    ecc_en: Asked = Field(default=None, description="Memory has error correction.")
    rapl_dis: Asked = Field(default=None, description="Running average power limits are off.")
    ciphertext_hiding_dram_en: Asked = Field(default=None, description="Ciphertext is hidden from the host.")
    alias_check_complete: Asked = Field(default=None, description="Memory was checked for aliases since reset.")
    iommu_write_safe: Asked = Field(default=None, description="The IOMMU keeps devices from private memory.")
    tio_en: Asked = Field(default=None, description="SEV-TIO is on.")


class Tcb(Strict):
    """Least security versions of the firmware; those that a line does not have are not looked at."""

    fmc: Svn = Field(default=0, description="Firmware microcontroller (Turin only).")
    bl: Svn = Field(default=0, description="Boot loader.")
    tee: Svn = Field(default=0, description="Operating system of the secure processor.")
    snp: Svn = Field(default=0, description="SNP firmware.")
    ucode: Svn = Field(default=0, description="Microcode.")


class TcbByLine(Strict):
    """Security versions by product line, as they have no meaning across them."""

    milan: Tcb | None = None
    genoa: Tcb | None = Field(default=None, description="Also of Bergamo and Siena.")
    turin: Tcb | None = None


class SnpPolicy(Strict):
    """What is asked of a guest, of the report on it, and of the platform that it runs on."""

    measurements: list[Digest48] = Field(default=[], description="Launch measurements that are accepted.")
    host_data: list[Hex32] = Field(default=[], description="Host data that are accepted; empty: any.")
    id_keys: list[Digest48] = Field(
        default=[],
        description="SHA-384 of keys, one of which signed the guest's identity; empty: any or none.",
    )
    author_keys: list[Digest48] = Field(
        default=[], description="SHA-384 of keys, one of which certified that key; empty: any or none."
    )
    family_ids: list[Hex16] = Field(default=[], description="Family ids that are accepted; empty: any.")
    image_ids: list[Hex16] = Field(default=[], description="Image ids that are accepted; empty: any.")
    guest_svn: int = Field(default=0, ge=0, lt=2**32, description="Least security version of the guest.")
    vmpl: int = Field(default=0, ge=0, le=3, description="The least privileged level that a report may be asked from.")
    guest: GuestBits = GuestBits()
    platform: PlatformBits = PlatformBits()
    lines: list[Literal["milan", "genoa", "turin"]] = Field(
        default=["milan", "genoa", "turin"], description="Product lines that are accepted."
    )
    minimum_tcb: TcbByLine = Field(default=TcbByLine(), description="Of the reported TCB, which the key proves.")
    minimum_launch_tcb: TcbByLine = Field(default=TcbByLine(), description="Of the TCB that the guest was launched on.")
    provisional_firmware: bool = Field(
        default=True, description="Whether firmware may run that the host has not committed to, and may take back."
    )
    vlek: bool = Field(default=True, description="Whether keys are accepted that are lent to a cloud provider.")
    csp_ids: list[str] | None = Field(default=None, description="Cloud providers whose keys are; null: any.")
    crl_required: bool = Field(
        default=False,
        description="Whether a list of revoked certificates must be there; one that is always counts.",
    )
