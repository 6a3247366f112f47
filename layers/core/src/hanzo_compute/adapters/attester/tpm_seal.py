"""Keys sealed to a TPM's state: what tier 1 promises of a machine of one's own.

A key of 32 bytes is sealed below the storage primary of the owner's hierarchy, under PolicyPCR and nothing else: no
password opens it, and it is unsealed only while the selected PCRs have the values of that moment. Between processor
and a discrete TPM the key crosses a bus in clear; someone with a probe on that bus can read it.

Run against swtpm 0.7 through tpm2-tools 5.4; with no discrete TPM, and with no vTPM of a cloud.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from hanzo_compute.adapters.attester.tpm import PCRS, selected
from hanzo_compute.adapters.attester.tpm_tools import Tools, Workplace
from hanzo_compute.errors import InvalidRequest

KEY: Final = 32
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Sealed:
    """A key as the TPM wrapped it: of use in that TPM, and in that state, only."""

    pcrs: str
    """Bank and indexes that it depends on."""
    public: bytes
    """TPM2B_PUBLIC, with the policy."""
    private: bytes = field(repr=False)
    """TPM2B_PRIVATE, encrypted by the TPM."""


def seal(tools: Tools, key: bytes, pcrs: str = PCRS) -> Sealed:
    """Seal a key to the present values of PCRs.

    Raises:
        InvalidRequest: the key has not 32 bytes, or the selection is none.
        EvidenceUnavailable: the TPM does not do it.
    """
    if len(key) != KEY:
        raise InvalidRequest(f"a sealed key has {KEY} bytes, not {len(key)}")
    selected(pcrs)
    with tools.session() as at:
        _primary(at)
        with at.policy("trial", trial=True) as session:
            _policy_pcr(at, session, pcrs)
        # Without userwithauth: the empty password must not open it.
        how = ("-L", "policy", "-a", "fixedtpm|fixedparent|noda", "-g", "sha256")
        # By standard input: the key is never a file.
        at.run("tpm2_create", "-C", "primary", "-i", "-", *how, "-u", "public", "-r", "private", stdin=key)
        return Sealed(pcrs, at.read("public"), at.read("private"))


def unseal(tools: Tools, sealed: Sealed) -> bytes:
    """The key.

    Raises:
        EvidenceUnavailable: the PCRs have other values, or it was sealed by another TPM.
    """
    selected(sealed.pcrs)
    with tools.session() as at:
        _primary(at)
        at.write("public", sealed.public)
        at.write("private", sealed.private)
        at.run("tpm2_load", "-C", "primary", "-u", "public", "-r", "private", "-c", "sealed")
        with at.policy("unseal") as session:
            _policy_pcr(at, session, sealed.pcrs)
            return at.run("tpm2_unseal", "-c", "sealed", "-p", f"session:{session}")


def _policy_pcr(at: Workplace, session: str, pcrs: str) -> None:
    """PolicyPCR over the selection, eight indexes at a time: the tool takes no more, and policies add up."""
    bank, indexes = selected(pcrs)
    for first in range(0, len(indexes), _AT_ONCE):
        part = ",".join(map(str, indexes[first : first + _AT_ONCE]))
        at.run("tpm2_policypcr", "-S", session, "-l", f"{bank}:{part}", "-L", "policy")


def _primary(at: Workplace) -> None:
    """The storage primary: from its template it comes out the same each time."""
    at.run("tpm2_createprimary", "-C", "o", "-G", "ecc", "-g", "sha256", "-c", "primary")
