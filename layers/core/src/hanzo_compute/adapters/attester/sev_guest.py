"""SEV-SNP reports through ``/dev/sev-guest``: the way of kernels without configfs-tsm (Linux 5.19 to 6.6).

By the kernel's ``Documentation/virt/coco/sev-guest.rst`` and ``include/uapi/linux/sev-guest.h``; the messages are
those of AMD 56860, SNP_GUEST_REQUEST; errors of the host are those of AMD 56421 (GHCB), SNP guest request.

Run against a model of the driver at the ioctl layer only, never on SNP hardware.
"""

from __future__ import annotations

import ctypes
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.attester.device import Ioctl, ioctl, opened
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest

DEVICE: Final = Path("/dev/sev-guest")
GET_REPORT: Final = 0xC020_5300
"""``_IOWR('S', 0, 32)``"""
GET_EXT_REPORT: Final = 0xC020_5302
"""``_IOWR('S', 2, 32)``: the same, with the host's table of certificates."""
REPORT: Final = 1184
CERTS_MAX: Final = 16 * 1024
"""Bytes: the driver takes no larger table (``SEV_FW_BLOB_MAX_SIZE``)."""
TRIES: Final = 8
_PAUSE_S: Final = 0.1
_INVALID_LENGTH: Final = 1
_BUSY: Final = 2


class GuestRequest(ctypes.Structure):
    """``snp_guest_request_ioctl``, 32 bytes."""

    _fields_ = (
        ("msg_version", ctypes.c_uint8),
        ("req_data", ctypes.c_uint64),
        ("resp_data", ctypes.c_uint64),
        ("fw_error", ctypes.c_uint32),
        ("vmm_error", ctypes.c_uint32),
    )


class ReportRequest(ctypes.Structure):
    """``snp_report_req``, 96 bytes."""

    _fields_ = (
        ("user_data", ctypes.c_uint8 * 64),
        ("vmpl", ctypes.c_uint32),
        ("reserved", ctypes.c_uint8 * 28),
    )


class ExtReportRequest(ctypes.Structure):
    """``snp_ext_report_req``, 112 bytes."""

    _fields_ = (
        ("data", ReportRequest),
        ("certs_address", ctypes.c_uint64),
        ("certs_len", ctypes.c_uint32),
    )


class ReportResponse(ctypes.Structure):
    """``snp_report_resp``, 4000 bytes: MSG_REPORT_RSP of the firmware."""

    _fields_ = (
        ("status", ctypes.c_uint32),
        ("report_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint8 * 24),
        ("report", ctypes.c_uint8 * 3968),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """A report, and the certificates that the host gave with it."""

    report: bytes = field(repr=False)
    cert_table: bytes = field(default=b"", repr=False)
    """The table as it came; empty where the host has none."""


def collect(
    report_data: bytes,
    *,
    vmpl: int = 0,
    device: Path = DEVICE,
    call: Ioctl = ioctl,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Ask for a report over 64 bytes (zeros are added), with the host's certificates if it has any.

    Raises:
        InvalidRequest: there is too much report data, or no such VMPL.
        EvidenceUnavailable: the device, the host or the firmware does not give one.
    """
    if len(report_data) > 64 or not 0 <= vmpl <= 3:
        raise InvalidRequest(f"a report has 64 bytes of data and VMPL 0 to 3, not {len(report_data)} and {vmpl}")
    asked = ReportRequest((ctypes.c_uint8 * 64)(*report_data), vmpl)
    with opened(device, "modprobe sev-guest, in a guest of SEV-SNP") as descriptor:
        asker = _Asker(descriptor, call, sleep)
        try:
            return _extended(asker, asked)
        except _Failed:
            # Hosts that know nothing of certificates, and tables larger than the driver takes.
            pass
        try:
            return Report(_checked(asker.ask(GET_REPORT, asked)))
        except _Failed as error:
            raise EvidenceUnavailable(f"{device} gives no report: {error}", hint=error.remedy) from error


class _Failed(Exception):
    def __init__(self, why: str, remedy: str = "dmesg may say more", host: int = 0) -> None:
        super().__init__(why)
        self.remedy = remedy
        self.host = host


@dataclass(frozen=True, slots=True)
class _Asker:
    descriptor: int
    call: Ioctl
    sleep: Callable[[float], None]

    def ask(self, request: int, asked: ctypes.Structure) -> ReportResponse:
        """One request and its response; again while the host is busy. Raises _Failed."""
        for turn in range(TRIES):
            response = ReportResponse()
            argument = GuestRequest(1, ctypes.addressof(asked), ctypes.addressof(response))
            try:
                self.call(self.descriptor, request, argument)
                return response
            except OSError as error:
                if argument.vmm_error != _BUSY and error.errno not in (errno.EAGAIN, errno.EINTR, errno.EBUSY):
                    raise _failed(error, argument) from error
            self.sleep(_PAUSE_S * 2**turn)
        raise _Failed(f"the host was busy {TRIES} times", "ask later: hosts limit how often a guest may ask")


def _failed(error: OSError, argument: GuestRequest) -> _Failed:
    if error.errno == errno.ENOTTY:
        return _Failed(
            "its key to the firmware is gone (ENOTTY): the kernel gives it up after an error", "start the guest again"
        )
    text = f"{error.strerror} (firmware error 0x{argument.fw_error:x}, host error {argument.vmm_error})"
    return _Failed(text, host=argument.vmm_error)


def _extended(asker: _Asker, report: ReportRequest) -> Report:
    """A report with its certificates: how large their table is, the host says when it does not fit."""
    size = 0
    for _ in range(3):
        table = ctypes.create_string_buffer(max(size, 1))
        asked = ExtReportRequest(report, ctypes.addressof(table) if size else 0, size)
        try:
            response = asker.ask(GET_EXT_REPORT, asked)
        except _Failed as error:
            if error.host != _INVALID_LENGTH or not size < asked.certs_len <= CERTS_MAX:
                raise
            size = asked.certs_len
            continue
        return Report(_checked(response), _cut(table.raw[:size]))
    raise _Failed("the host's certificates grow while they are asked for")


def _checked(response: ReportResponse) -> bytes:
    if response.status or response.report_size != REPORT:
        raise _Failed(
            f"the firmware answers status 0x{response.status:x} and {response.report_size} bytes",
            "status 0x16: the request is not valid, such as a VMPL above the guest's own",
        )
    return bytes(response.report[:REPORT])


def _cut(table: bytes) -> bytes:
    """Without the zeros that fill its last page, if there are any; a table of zeros only is none."""
    return table if any(table) else b""
