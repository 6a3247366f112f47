"""The section of a policy on evidence of NVIDIA."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hanzo_compute.attestation.sections import Strict

Architecture = Literal["hopper", "blackwell", "nvswitch"]
"""Kinds of devices whose evidence is understood."""
Mode = Literal["single", "multi", "protected_pcie"]
"""How GPUs are given to a confidential virtual machine: one by itself; several, with encrypted links between them; all
of a machine with its switches, whose links are not encrypted. NVIDIA calls them SPT, MPT and PPCIE."""


class NvidiaPolicy(Strict):
    """What is asked of it."""

    architectures: list[Architecture] = Field(
        default=["hopper", "blackwell", "nvswitch"], description="Kinds of devices that are acceptable."
    )
    modes: list[Mode] = Field(
        default=["single", "multi", "protected_pcie"],
        description="Modes that are acceptable. A report of a driver too early to name one is of `single`.",
    )
    allow_debug: bool = Field(
        default=False, description="Accept a device whose certificate says debug, recovery or not secure."
    )
    drivers: list[str] = Field(
        default=[],
        description="Versions of the driver that are acceptable; none named: each with reference values of NVIDIA.",
    )
    vbios: list[str] = Field(
        default=[],
        description="Versions of the VBIOS that are acceptable; none named: each with reference values of NVIDIA.",
    )
    require_ocsp: bool = Field(
        default=True, description="Each certificate that NVIDIA issued needs an OCSP response, of now and good."
    )
    allow_hold: bool = Field(
        default=False, description="Accept a certificate of reference values that is on hold, and not revoked."
    )
