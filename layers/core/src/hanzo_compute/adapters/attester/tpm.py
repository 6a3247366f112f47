"""Evidence of a TPM 2.0: a quote by an attestation key that the TPM made, and what ties that key to its maker.

The endorsement key (EK) is made anew from the default template L-1 (RSA 2048) or L-2 (ECC P-256) of the TCG EK
Credential Profile: it comes out the same each time. The attestation key (AK) is made below it, restricted, so that
it signs only what the TPM says itself, and never leaves it in clear; its wrapped form can be kept and loaded again.
A verifier's credential (TPM 2.0 part 1, section 24) shows that the AK is in the TPM of that EK.

Run against swtpm 0.7 through tpm2-tools 5.4; with no discrete TPM, and with no vTPM of a cloud.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.attester.tpm_tools import ToolFailed, Tools, Workplace
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import EVIDENCE_FILE_MAX, Evidence, Platform

EK_CERTIFICATES: Final = (("rsa", 0x01C0_0002), ("ecc", 0x01C0_000A))
"""Kind of endorsement key and the NV index of its certificate: templates L-1 and L-2."""
EK_CHAIN: Final = range(0x01C0_0100, 0x01C0_0200)
"""NV indexes of the certificates above (TCG EK Credential Profile 2.5, section 2.2.1.5)."""
CHAIN_MAX: Final = 8
PCRS: Final = "sha256:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14"
"""What is quoted, unless told otherwise: firmware, its settings, boot loader and kernel."""
EVENT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
QUALIFYING_MAX: Final = 64
CREDENTIAL_MAX: Final = 1024
_SELECTION: Final = re.compile(r"(sha256|sha384|sha512):([0-9]|1[0-9]|2[0-3])(,([0-9]|1[0-9]|2[0-3]))*")
_QUOTES: Final = 3
_CREDENTIAL_MAGIC: Final = 0xBADC_C0DE
"""tpm2-tools: head of a credential's file, with version 1; then come the TPM's own structures."""


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """An AK as the TPM wrapped it: of use in that TPM only."""

    kind: str
    """Of the EK above it: ``rsa`` or ``ecc``."""
    public: bytes
    """TPM2B_PUBLIC."""
    private: bytes = field(repr=False)
    """TPM2B_PRIVATE, encrypted by the EK's."""
    name: bytes
    """TPM2B_NAME's content: 34 bytes. What a credential is made for."""


@dataclass(frozen=True, slots=True)
class Tpm:
    """One TPM."""

    tools: Tools = field(default_factory=Tools)
    event_log: Path | None = EVENT_LOG
    """The firmware's log of what it measured; left out where it is not there, or not for this user."""

    def make_key(self) -> AttestationKey:
        """Make an attestation key (ECDSA P-256, SHA-256). Raises EvidenceUnavailable."""
        with self.tools.session() as at:
            kind = self._kind(at)
            _endorsement(at, kind)
            algorithm = ("-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-f", "tss")
            at.run(
                "tpm2_createak", "-C", "ek", "-c", "ak", *algorithm, "-u", "ak.pub", "-r", "ak.priv", "-n", "ak.name"
            )
            return AttestationKey(kind, at.read("ak.pub"), at.read("ak.priv"), at.read("ak.name"))

    def quote(self, key: AttestationKey, qualifying: bytes, pcrs: str = PCRS) -> Evidence:
        """A quote over PCRs.

        Args:
            key: signs.
            qualifying: up to 64 bytes that it carries (``extraData``); some TPMs take 32 only.
            pcrs: bank and indexes, ``sha256:0,7``.

        Raises:
            InvalidRequest: the selection is none, SHA-1's, or there is too much qualifying data.
            EvidenceUnavailable: the TPM does not do it.
        """
        if not 1 <= len(qualifying) <= QUALIFYING_MAX:
            raise InvalidRequest(f"qualifying data has 1 to {QUALIFYING_MAX} bytes, not {len(qualifying)}")
        selected(pcrs)
        with self.tools.session() as at:
            _endorsement(at, key.kind)
            _load(at, key)
            at.run("tpm2_readpublic", "-c", "ak", "-f", "pem", "-o", "ak.pem")
            _quote(at, qualifying, pcrs)
            names = {"message": "message", "signature": "signature", "pcrs": "pcrs", "ak": "ak.pem"}
            files = {name: at.read(file) for name, file in names.items()}
            files |= {"ak_tpm2b": key.public, "ek_tpm2b": at.read("ek.pub")}
            files |= _certificates(at, key.kind)
        if log := self._events():
            files["eventlog"] = log
        return Evidence(Platform.TPM, files)

    def activate(self, key: AttestationKey, credential: bytes) -> bytes:
        """The secret in a credential that was made for this key's name and this TPM's EK.

        Args:
            key: the one it was made for.
            credential: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, one after the other.

        Raises:
            InvalidRequest: it is no credential.
            EvidenceUnavailable: it was made for another key or another TPM.
        """
        if not _is_credential(credential):
            raise InvalidRequest("a credential is TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET")
        with self.tools.session() as at:
            _endorsement(at, key.kind)
            _load(at, key)
            at.write("credential", struct.pack(">II", _CREDENTIAL_MAGIC, 1) + credential)
            with at.policy("activation") as session:
                at.run("tpm2_policysecret", "-S", session, "-c", "e")
                by = ("-P", f"session:{session}")
                at.run("tpm2_activatecredential", "-c", "ak", "-C", "ek", "-i", "credential", "-o", "secret", *by)
            return at.read("secret")

    def _kind(self, at: Workplace) -> str:
        """The kind of EK that this TPM has a certificate of; RSA if it has none."""
        stored = _indexes(at)
        return next((kind for kind, index in EK_CERTIFICATES if index in stored), "rsa")

    def _events(self) -> bytes:
        try:
            log = self.event_log.read_bytes() if self.event_log else b""
        except OSError:
            return b""
        return log if len(log) <= EVIDENCE_FILE_MAX else b""


def selected(pcrs: str) -> tuple[str, list[int]]:
    """Bank and indexes of a selection.

    Raises:
        InvalidRequest: it is none, of SHA-1, or names an index twice.
    """
    bank, _, indexes = pcrs.partition(":")
    found = indexes.split(",")
    if not _SELECTION.fullmatch(pcrs) or len(set(found)) != len(found):
        raise InvalidRequest(
            f"{pcrs!r} selects no PCRs", hint="a bank (sha256, sha384, sha512) and indexes to 23, once each: sha256:0,7"
        )
    return bank, [int(each) for each in found]


def _endorsement(at: Workplace, kind: str) -> None:
    """The EK, as context ``ek`` and public area ``ek.pub`` (TPM2B_PUBLIC)."""
    at.run("tpm2_createek", "-c", "ek", "-G", kind, "-u", "ek.pub", "-f", "tss")


def _load(at: Workplace, key: AttestationKey) -> None:
    """The AK as context ``ak``: using the EK for it takes a session by its policy, PolicySecret(endorsement)."""
    at.write("ak.pub", key.public)
    at.write("ak.priv", key.private)
    with at.policy("load") as session:
        at.run("tpm2_policysecret", "-S", session, "-c", "e")
        by = ("-P", f"session:{session}")
        at.run("tpm2_load", "-C", "ek", *by, "-u", "ak.pub", "-r", "ak.priv", "-c", "ak", "-n", "ak.name")


def _quote(at: Workplace, qualifying: bytes, pcrs: str) -> None:
    """Quote and read the PCRs. The tool refuses if one was extended in between: then both are done again."""
    out = ("-m", "message", "-s", "signature", "-o", "pcrs")
    for last in (*[False] * (_QUOTES - 1), True):
        try:
            at.run("tpm2_quote", "-c", "ak", "-l", pcrs, "-q", qualifying.hex(), *out, "-g", "sha256")
            return
        except ToolFailed:
            if last:
                raise


def _indexes(at: Workplace) -> set[int]:
    listed = at.run("tpm2_getcap", "handles-nv-index").decode("ascii", "replace")
    return {int(each, 16) for each in re.findall(r"0x[0-9A-Fa-f]+", listed)}


def _certificates(at: Workplace, kind: str) -> dict[str, bytes]:
    """The EK's certificate and the authorities above it, DER, as far as the TPM's maker stored them."""
    stored, index = _indexes(at), dict(EK_CERTIFICATES)[kind]
    if index not in stored:
        return {}
    own = _split(at.run("tpm2_nvread", f"0x{index:08x}"))[:1]
    # The chain is one stream of certificates, whichever indexes it is cut at.
    above = b"".join(at.run("tpm2_nvread", f"0x{each:08x}") for each in sorted(stored & set(EK_CHAIN)))
    authorities = {f"ca_{number}": each for number, each in enumerate(_split(above)[:CHAIN_MAX])}
    return {"ek_cert": own[0]} | authorities if own else authorities


def _split(data: bytes) -> list[bytes]:
    """Certificates, one after the other; what is no certificate, such as the filling at the end, is left out."""
    found: list[bytes] = []
    while data[:2] == b"\x30\x82" and len(data) > 4:
        size = 4 + int.from_bytes(data[2:4], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def _is_credential(data: bytes) -> bool:
    """Two sized structures and nothing after them."""
    if not 4 <= len(data) <= CREDENTIAL_MAX:
        return False
    first = 2 + int.from_bytes(data[:2], "big")
    second = data[first : first + 2]
    return len(second) == 2 and len(data) == first + 2 + int.from_bytes(second, "big")
