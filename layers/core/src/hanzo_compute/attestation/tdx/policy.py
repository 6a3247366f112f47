"""The sections of a policy on evidence of TDX and SGX."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from hanzo_compute.attestation.sections import Hex, Strict

Bytes8 = Annotated[Hex, StringConstraints(min_length=16, max_length=16)]
Bytes16 = Annotated[Hex, StringConstraints(min_length=32, max_length=32)]
Bytes32 = Annotated[Hex, StringConstraints(min_length=64, max_length=64)]
Bytes48 = Annotated[Hex, StringConstraints(min_length=96, max_length=96)]


class TcbStatus(StrEnum):
    """What Intel says of a TCB level, from the best to the worst (Intel PCS API v4, TCB info)."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"

    @property
    def badness(self) -> int:
        """0 is the best."""
        return _BADNESS[self]


_BADNESS = {status: number for number, status in enumerate(TcbStatus)}


def _tuple(value: Any) -> Any:
    """A list, as YAML has it, for a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _statuses(value: Any) -> Any:
    """Statuses by their names, as YAML has them."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(TcbStatus(each) if isinstance(each, str) else each for each in value)


Statuses = Annotated[tuple[TcbStatus, ...], BeforeValidator(_statuses)]
Advisories = Annotated[tuple[Annotated[str, StringConstraints(max_length=64)], ...], BeforeValidator(_tuple)]


class TcbPolicy(Strict):
    """What is asked of the processor, its firmware and the quoting enclave, by Intel's collateral."""

    tcb_statuses: Statuses = Field(
        default=(TcbStatus.UP_TO_DATE,),
        min_length=1,
        description="Statuses of the TCB that are accepted; Revoked never is.",
    )
    rejected_advisories: Advisories = Field(
        default=(), description="Advisories (INTEL-SA-…) that must not apply, whatever the status."
    )
    accepted_advisories: Advisories | None = Field(
        default=None, description="If given: only these advisories may apply, whatever the status."
    )
    min_tcb_evaluation_data_number: int = Field(
        default=0, ge=0, le=2**31, description="The oldest TCB recovery whose collateral is accepted."
    )


class TdReference(Strict):
    """Reference values of one trust domain, which must hold together; bytes as hex."""

    name: str = Field(default="", max_length=128, description="For people.")
    mrtd: Bytes48 = Field(description="Of the initial memory: the virtual firmware.")
    rtmr0: Bytes48 | None = Field(default=None, description="Firmware configuration; differs by size of the machine.")
    rtmr1: Bytes48 = Field(description="Boot loader and kernel.")
    rtmr2: Bytes48 = Field(description="Command line, initial file system, and what the system measures.")
    rtmr3: Bytes48 | None = Field(default=None, description="What the application extends.")
    mrconfigid: Bytes48 | None = Field(default=None, description="Configuration that the host set.")
    mrowner: Bytes48 | None = Field(default=None, description="Owner that the host set.")
    mrownerconfig: Bytes48 | None = Field(default=None, description="The owner's configuration.")


class TdxPolicy(TcbPolicy):
    """What is asked of a trust domain (TDX Module 1.5 Base Architecture Specification)."""

    references: Annotated[tuple[TdReference, ...], BeforeValidator(_tuple)] = Field(
        default=(), max_length=256, description="Trust domains that are accepted: one must hold in all its values."
    )
    mrseam: Annotated[tuple[Bytes48, ...], BeforeValidator(_tuple)] = Field(
        default=(), max_length=256, description="TDX modules that are accepted; none: any that Intel signed."
    )
    min_tee_tcb_svn: Bytes16 | None = Field(
        default=None, description="Least TEE_TCB_SVN, each of its 16 bytes by itself."
    )
    allow_debug: bool = Field(default=False, description="Accept trust domains whose memory the host can read.")
    require_sept_ve_disable: bool = Field(
        default=True, description="Refuse trust domains that the host can interrupt by taking pages away."
    )
    td_attributes_allowed: Bytes8 = Field(
        default="010000d000000080",
        description="Mask of td_attributes that may be set: DEBUG (judged by its own field), SEPT_VE_DISABLE, PKS, "
        "KL and PERFMON. MIGRATABLE is not among them.",
    )
    xfam_allowed: Bytes8 = Field(
        default="e7db0e0000000000", description="Mask of XFAM bits that may be set; bits 0 and 1 always must."
    )
    mrservicetd: Annotated[tuple[Bytes48, ...], BeforeValidator(_tuple)] = Field(
        default=("00" * 48,), min_length=1, description="Service TDs that may be bound; by default none."
    )
    require_event_log: bool = Field(default=False, description="An event log must come with it, and agree.")


class EnclaveReference(Strict):
    """Reference values of an enclave: the one, or whoever signed it with product and version."""

    name: str = Field(default="", max_length=128, description="For people.")
    mrenclave: Bytes32 | None = Field(default=None, description="Of its code and data.")
    mrsigner: Bytes32 | None = Field(default=None, description="SHA-256 of the signer's key.")
    isvprodid: int | None = Field(default=None, ge=0, le=0xFFFF, description="The signer's number of the product.")
    min_isvsvn: int | None = Field(default=None, ge=0, le=0xFFFF, description="Least security version.")

    @model_validator(mode="after")
    def _names_an_enclave(self) -> EnclaveReference:
        if self.mrenclave is None and (self.mrsigner is None or self.isvprodid is None):
            raise ValueError("a reference names mrenclave, or mrsigner and isvprodid")
        return self


class SgxPolicy(TcbPolicy):
    """What is asked of an enclave."""

    references: Annotated[tuple[EnclaveReference, ...], BeforeValidator(_tuple)] = Field(
        default=(), max_length=256, description="Enclaves that are accepted: one must hold in all its values."
    )
    allow_debug: bool = Field(default=False, description="Accept enclaves that the host can read.")
