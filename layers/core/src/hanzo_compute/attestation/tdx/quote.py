"""Quotes of Intel's DCAP: version 3 of SGX, versions 4 and 5 of TDX.

Layouts: Intel SGX ECDSA QuoteGenReference API appendix A (version 3), Intel TDX DCAP Quoting Library API appendix 3
(versions 4 and 5). Integers are little-endian. Every length must be exact: what follows the quote may be zeros only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from hanzo_compute.attestation.checks import Unreadable

QUOTE_MAX: Final = 64 * 1024
HEADER_SIZE: Final = 48
ENCLAVE_SIZE: Final = 384
TD10_SIZE: Final = 584
TD15_SIZE: Final = 648
SGX_TYPE: Final = 0x00
TDX_TYPE: Final = 0x81
ECDSA_P256: Final = 2
"""Attestation key type: ECDSA-256 with curve P-256."""
PCK_CHAIN: Final = 5
"""Type of certification data: the PCK certificate chain in PEM."""
QE_REPORT: Final = 6
"""Type of certification data: report of the quoting enclave with certification data of its own."""
INTEL_QE: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""Vendor of the quoting enclave."""

_SIZE: Final = struct.Struct("<I")
_HEADER: Final = struct.Struct("<HHI4x16s20s")
_BODIES: Final = {2: TD10_SIZE, 3: TD15_SIZE}
_TD: Final = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD15: Final = struct.Struct("<16s48s")
_ENCLAVE: Final = struct.Struct("<16s4s28x16s32s32x32s96xHH60x64s")
_SIGNED: Final = struct.Struct("<64s64s")
"""Signature and attestation key, with which the authentication data starts."""
_CERTIFIED: Final = struct.Struct("<384s64sH")
"""Report of the quoting enclave, its signature, size of the quoting enclave's data."""
_SIZED: Final = struct.Struct("<HI")
"""Type and size of certification data; of a body's descriptor, too."""


@dataclass(frozen=True, slots=True)
class EnclaveReport:
    """An SGX report's body (Intel SDM volume 3D, table 40-21)."""

    cpusvn: bytes
    miscselect: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    report_data: bytes


@dataclass(frozen=True, slots=True)
class TdReport:
    """A TD quote's body, of TDX 1.0; of TDX 1.5 with the last two fields."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mrservicetd: bytes | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote, its lengths checked and nothing verified."""

    version: int
    att_key_type: int
    tee_type: int
    qe_vendor: bytes
    user_data: bytes
    body_type: int | None
    """Of version 5: 2 is TDX 1.0, 3 is TDX 1.5."""
    body: EnclaveReport | TdReport
    signed: bytes = field(repr=False)
    """What the attestation key signs: header and body."""
    signature: bytes = field(repr=False)
    """r ‖ s of 32 bytes each, big-endian."""
    attestation_key: bytes = field(repr=False)
    """x ‖ y of 32 bytes each, big-endian."""
    qe_report: bytes = field(repr=False)
    qe: EnclaveReport
    """The quoting enclave, as its report says."""
    qe_signature: bytes = field(repr=False)
    qe_auth: bytes = field(repr=False)
    cert_type: int
    cert_data: bytes = field(repr=False)
    trailing: bytes = field(repr=False)


class _Reader:
    """Takes parts off the front, and says where one is missing."""

    __slots__ = ("at", "data", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.at, self.what = data, 0, what

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise Unreadable(f"{self.what} is cut off: {size} bytes are wanted at {self.at}, and {len(part)} are there")
        self.at += size
        return part

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))

    def rest(self) -> bytes:
        return self.data[self.at :]

    def end(self) -> None:
        if self.at != len(self.data):
            raise Unreadable(f"{self.what} has {len(self.data) - self.at} bytes too many")


def parse(data: bytes) -> Quote:
    """A quote from its bytes.

    Raises:
        Unreadable: it is larger than :data:`QUOTE_MAX`, of another version, or its lengths do not agree.
    """
    if len(data) > QUOTE_MAX:
        raise Unreadable(f"the quote has {len(data)} bytes; the limit is {QUOTE_MAX}")
    reader = _Reader(data, "the quote")
    version, key_type, tee_type, vendor, user_data = reader.unpack(_HEADER)
    body_type, size = _body_size(reader, version, tee_type)
    body = _enclave(reader.take(size)) if tee_type == SGX_TYPE else _td(reader.take(size))
    signed = data[: reader.at]
    (size,) = reader.unpack(_SIZE)
    auth = _Reader(reader.take(size), "the authentication data")
    signature, key = auth.unpack(_SIGNED)
    certified = auth if version == 3 else _certified(auth)
    report, qe_signature, size = certified.unpack(_CERTIFIED)
    qe_auth = certified.take(size)
    cert_type, size = certified.unpack(_SIZED)
    cert_data = certified.take(size)
    certified.end()
    return Quote(
        version,
        key_type,
        tee_type,
        vendor,
        user_data,
        body_type,
        body,
        signed,
        signature,
        key,
        report,
        _enclave(report),
        qe_signature,
        qe_auth,
        cert_type,
        cert_data,
        reader.rest(),
    )


def _enclave(data: bytes) -> EnclaveReport:
    return EnclaveReport(*_ENCLAVE.unpack(data))


def _body_size(reader: _Reader, version: int, tee_type: int) -> tuple[int | None, int]:
    match version, tee_type:
        case 3, 0x00:
            return None, ENCLAVE_SIZE
        case 4, 0x81:
            return None, TD10_SIZE
        case 5, 0x81:
            kind, size = reader.unpack(_SIZED)
            if _BODIES.get(kind) != size:
                raise Unreadable(f"a quote of version 5 has no body of type {kind} with {size} bytes for TDX")
            return kind, size
        case _:
            text = f"a quote of version {version} and TEE type 0x{tee_type:x} is not known"
            raise Unreadable(f"{text}: SGX has version 3, TDX (0x81) versions 4 and 5")


def _td(data: bytes) -> TdReport:
    more = _TD15.unpack(data[TD10_SIZE:]) if len(data) == TD15_SIZE else ()
    return TdReport(*_TD.unpack(data[:TD10_SIZE]), *more)


def _certified(auth: _Reader) -> _Reader:
    """From version 4 on, the report of the quoting enclave is certification data itself."""
    kind, size = auth.unpack(_SIZED)
    if kind != QE_REPORT:
        raise Unreadable(f"the certification data is of type {kind}, not {QE_REPORT} (report of the quoting enclave)")
    inner = _Reader(auth.take(size), "the certification data")
    auth.end()
    return inner
