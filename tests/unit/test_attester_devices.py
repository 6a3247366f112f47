"""Evidence through /dev/sev-guest and /dev/nsm, on devices that are played at the ioctl layer."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.attester import device, nsm, sev_guest
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest
from tests.support.fake_devices import REPORT_DATA_AT, Nsm, SevGuest

DATA = bytes(range(64))
ANY = Path("/dev/null")
"""Stands for the device file: it can be opened, and the played ioctl never reaches it."""


def report(user_data: bytes, vmpl: int) -> bytes:
    body = bytearray(1184)
    body[0x30] = vmpl
    body[REPORT_DATA_AT : REPORT_DATA_AT + 64] = user_data
    return bytes(body)


class TestSevGuest:
    def collect(self, guest: SevGuest, data: bytes = DATA, **options: Any) -> sev_guest.Report:
        return sev_guest.collect(data, device=ANY, call=guest, sleep=lambda _: None, **options)

    def test_a_host_with_certificates(self) -> None:
        """The first request says how large their table is; it comes in whole pages."""
        table = b"GUID" * 1500
        guest = SevGuest(report, table)
        found = self.collect(guest)
        assert found == sev_guest.Report(report(DATA, 0), table.ljust(8192, b"\0"))
        assert guest.calls == ["ext", "ext"]

    def test_a_host_without(self) -> None:
        guest = SevGuest(report)
        assert self.collect(guest, b"short", vmpl=1) == sev_guest.Report(report(b"short".ljust(64, b"\0"), 1))
        assert guest.calls == ["ext"]
        assert self.collect(SevGuest(report, bytes(24))).cert_table == b""

    @pytest.mark.parametrize("certificates", [None, b"x" * 20_000])
    def test_the_report_alone(self, certificates: bytes | None) -> None:
        """Hosts that do not know the extended request, and tables over the driver's bound."""
        guest = SevGuest(report, certificates)
        assert self.collect(guest) == sev_guest.Report(report(DATA, 0))
        assert guest.calls == ["ext", "report"]

    def test_certificates_that_grow(self) -> None:
        guest = SevGuest(report, b"x" * 5000)
        sizes = iter([4096, 8192, 8192])

        def call(descriptor: int, request: int, argument: Any) -> None:
            guest.certificates = b"x" * next(sizes)
            guest(descriptor, request, argument)

        found = sev_guest.collect(DATA, device=ANY, call=call, sleep=lambda _: None)
        assert len(found.cert_table) == 8192
        assert guest.calls == ["ext"] * 3

    def test_a_busy_host(self) -> None:
        waits: list[float] = []
        guest = SevGuest(report, busy=3)
        assert sev_guest.collect(DATA, device=ANY, call=guest, sleep=waits.append).report == report(DATA, 0)
        assert waits == [0.1, 0.2, 0.4]
        with pytest.raises(EvidenceUnavailable, match="busy 8 times"):
            self.collect(SevGuest(report, busy=100))

    def test_what_the_firmware_refuses(self) -> None:
        with pytest.raises(EvidenceUnavailable, match="status 0x16"):
            self.collect(SevGuest(report, status=0x16))
        with pytest.raises(EvidenceUnavailable, match="1000 bytes"):
            self.collect(SevGuest(lambda _data, _vmpl: bytes(1000)))

    def test_a_guest_that_lost_its_key(self) -> None:
        with pytest.raises(EvidenceUnavailable, match="key to the firmware is gone") as failed:
            self.collect(SevGuest(report, key_is_gone=True))
        assert failed.value.hint == "start the guest again"

    def test_what_cannot_be_asked(self) -> None:
        with pytest.raises(InvalidRequest):
            self.collect(SevGuest(report), bytes(65))
        with pytest.raises(InvalidRequest):
            self.collect(SevGuest(report), vmpl=4)

    def test_no_device(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceUnavailable, match="cannot be opened") as failed:
            sev_guest.collect(DATA, device=tmp_path / "sev-guest")
        assert "modprobe" in str(failed.value.hint)

    def test_a_file_that_is_no_device(self) -> None:
        """The real ioctl on another device: its error comes through."""
        with pytest.raises(EvidenceUnavailable, match="ENOTTY"):
            sev_guest.collect(DATA, device=ANY)


class TestNsm:
    def attest(self, module: Nsm, *given: bytes | None) -> bytes:
        return nsm.attest(*given, device=ANY, call=module)

    def test_a_document(self) -> None:
        asked: list[Any] = []

        def answer(request: Any) -> Any:
            asked.append(request)
            return {"Attestation": {"document": b"COSE"}}

        assert self.attest(Nsm(answer), DATA, b"nonce") == b"COSE"
        assert asked == [{"Attestation": {"user_data": DATA, "nonce": b"nonce", "public_key": None}}]

    def test_a_description(self) -> None:
        module = Nsm(lambda request: {request: {"module_id": "i-0-enc0"}})
        assert nsm.describe(device=ANY, call=module) == {"module_id": "i-0-enc0"}

    @pytest.mark.parametrize("name", ["InvalidArgument", "InternalError", "InputTooLarge"])
    def test_errors_by_name(self, name: str) -> None:
        with pytest.raises(EvidenceUnavailable, match=f"refuses: {name}") as failed:
            self.attest(Nsm(lambda _: {"Error": name}))
        assert failed.value.data["name"] == name

    @pytest.mark.parametrize(
        "answer", [{}, [], "Attestation", {"Attestation": {}}, {"Attestation": {"document": ""}}, {"Attestation": 1}]
    )
    def test_answers_without_a_document(self, answer: Any) -> None:
        with pytest.raises(EvidenceUnavailable):
            self.attest(Nsm(lambda _: answer))

    def test_what_is_no_cbor(self) -> None:
        for raw in (b"\xff", b"\xa1"):
            with pytest.raises(EvidenceUnavailable, match="no CBOR"):
                self.attest(Nsm(lambda _: None, raw=raw))
        for length in (0, 0x3001):
            with pytest.raises(EvidenceUnavailable, match=f"answers {length} bytes"):
                self.attest(Nsm(lambda _: None, length=length))

    def test_the_device_fails(self) -> None:
        with pytest.raises(EvidenceUnavailable, match="Input/output error"):
            self.attest(Nsm(lambda _: None, number=errno.EIO))

    @pytest.mark.parametrize("given", [(bytes(513),), (None, bytes(513)), (None, None, bytes(1025))])
    def test_what_is_too_long(self, given: tuple[bytes | None, ...]) -> None:
        with pytest.raises(InvalidRequest, match="at most"):
            self.attest(Nsm(lambda _: None), *given)

    def test_no_device(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceUnavailable, match="cannot be opened"):
            nsm.attest(device=tmp_path / "nsm")


def test_a_device_for_others_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(device.os, "open", refuse)
    with pytest.raises(EvidenceUnavailable, match="Permission denied") as failed:
        nsm.attest(device=tmp_path)
    assert "run as root" in str(failed.value.hint)
