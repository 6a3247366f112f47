"""Evidence through configfs-tsm: what is written how often, whose answer it is, and what goes wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from pathlib import Path

import pytest

from hanzo_compute.adapters.attester import tsm
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest
from tests.support.fake_tsm import ROOT, Blobs, Entry, KernelTsm

DATA = bytes(range(64))
TDX = frozenset({"inblob", "outblob", "generation", "provider"})


def echo(entry: Entry) -> Blobs:
    """A report that says what it was made for."""
    return bytes([entry.privlevel]) + entry.inblob, b"certificates", b"manifest of " + entry.service.encode()


def collect(kernel: KernelTsm, data: bytes = DATA, tries: int = tsm.TRIES, **options: object) -> tsm.Report:
    request = tsm.Request(data, **options)  # type: ignore[arg-type]
    return tsm.collect(request, ROOT, tree=kernel, sleep=lambda _: None, tries=tries)


def test_a_report_with_its_certificates() -> None:
    kernel = KernelTsm(echo)
    report = collect(kernel)
    assert report == tsm.Report("sev_guest", b"\0" + DATA, b"certificates", b"")
    assert (kernel.entries, len(kernel.made)) == ({}, 1)


def test_short_report_data_is_padded() -> None:
    assert collect(KernelTsm(echo), b"nonce").outblob[1:] == b"nonce".ljust(64, b"\0")
    with pytest.raises(InvalidRequest, match="at most 64 bytes"):
        collect(KernelTsm(echo), bytes(65))


def test_a_provider_without_levels_and_certificates() -> None:
    kernel = KernelTsm(echo, provider="tdx_guest", attributes=TDX)
    assert collect(kernel) == tsm.Report("tdx_guest", b"\0" + DATA)
    with pytest.raises(InvalidRequest, match="no privilege levels"):
        collect(kernel, privlevel=1)
    assert kernel.entries == {}


@pytest.mark.parametrize(("asked", "level"), [(None, 2), (2, 2), (3, 3)])
def test_the_privilege_level_is_no_lower_than_the_floor(asked: int | None, level: int) -> None:
    assert collect(KernelTsm(echo, floor=2), privlevel=asked).outblob[0] == level


@pytest.mark.parametrize("asked", [1, 4, -1])
def test_a_privilege_level_that_there_is_not(asked: int) -> None:
    kernel = KernelTsm(echo, floor=2)
    with pytest.raises(InvalidRequest, match="2 to 3"):
        collect(kernel, privlevel=asked)
    assert kernel.entries == {}


def test_a_service_module_and_its_manifest() -> None:
    kernel = KernelTsm(echo)
    with pytest.raises(EvidenceUnavailable, match="no service module"):
        collect(kernel, service_provider="svsm")
    kernel.attributes |= {"service_provider", "manifestblob"}
    assert collect(kernel).manifestblob == b""
    assert collect(kernel, service_provider="svsm").manifestblob == b"manifest of svsm"


class TestOthers:
    """Somebody else writes to our entry."""

    @pytest.mark.parametrize("attribute", ["inblob", "outblob", "auxblob", "provider"])
    def test_once(self, attribute: str) -> None:
        kernel = KernelTsm(echo)
        self.interfere(kernel, attribute, times=1)
        report = collect(kernel)
        assert (report.outblob, len(kernel.made)) == (b"\0" + DATA, 2)
        assert kernel.entries == {}

    def test_always(self) -> None:
        kernel = KernelTsm(echo)
        self.interfere(kernel, "outblob", times=100)
        with pytest.raises(EvidenceUnavailable, match="something else wrote"):
            collect(kernel, tries=4)
        assert (kernel.entries, len(kernel.made)) == ({}, 4)

    def test_a_write_that_was_dropped_is_noticed(self) -> None:
        """The kernel reports no error of inblob; here another's data is in the entry, and ours is lost."""
        kernel = KernelTsm(echo, dropped=1)

        def before(operation: str, name: str, attribute: str) -> None:
            if (operation, attribute) == ("write", "inblob") and kernel.dropped:
                kernel.entries[name].inblob = b"another's".ljust(64)

        kernel.before = before
        assert collect(kernel).outblob == b"\0" + DATA
        assert len(kernel.made) == 2

    def test_many_threads_and_a_hostile_one(self) -> None:
        """Whatever the order, what is returned answers what was asked."""
        kernel, ended, wrong, got = KernelTsm(echo), threading.Event(), [], []

        def hostile() -> None:
            chance = random.Random(7)
            while not ended.is_set():
                for name in list(kernel.entries):
                    if chance.random() < 0.3:
                        with contextlib.suppress(OSError):
                            kernel.write(ROOT / name / "inblob", bytes(64))
                ended.wait(0.0005)

        def honest(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(40):
                data = chance.randbytes(64)
                with contextlib.suppress(EvidenceUnavailable):
                    (got if collect(kernel, data, 20).outblob[1:] == data else wrong).append(data)

        enemy = threading.Thread(target=hostile)
        friends = [threading.Thread(target=honest, args=(number,)) for number in range(4)]
        for each in (enemy, *friends):
            each.start()
        for each in friends:
            each.join()
        ended.set()
        enemy.join()
        assert (wrong, kernel.entries) == ([], {})
        assert len(got) > 40

    @staticmethod
    def interfere(kernel: KernelTsm, attribute: str, times: int) -> None:
        left = [times]

        def before(_operation: str, name: str, read: str) -> None:
            if read == attribute and left[0] and not kernel.entries[name].inblob.startswith(b"evil"):
                left[0] -= 1
                kernel._inblob(kernel.entries[name], ROOT / name / "inblob", b"evil".ljust(64))

        kernel.before = before


class TestErrors:
    """What the kernel answers, in words, and with the entry gone."""

    @pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT])
    def test_try_again(self, number: int) -> None:
        left = [2]

        def busy(entry: Entry) -> Blobs:
            if left[0]:
                left[0] -= 1
                raise OSError(number, os.strerror(number))
            return echo(entry)

        kernel = KernelTsm(busy)
        assert collect(kernel).outblob == b"\0" + DATA
        left[0] = 100
        with pytest.raises(EvidenceUnavailable, match="in 6 tries"):
            collect(kernel)
        assert kernel.entries == {}

    @pytest.mark.parametrize(
        ("number", "why"),
        [(errno.EIO, "firmware or the host"), (errno.EINVAL, "refuses"), (errno.ENOMEM, "Cannot allocate")],
    )
    def test_the_firmware_fails(self, number: int, why: str) -> None:
        def fail(_entry: Entry) -> Blobs:
            raise OSError(number, os.strerror(number))

        kernel = KernelTsm(fail)
        with pytest.raises(EvidenceUnavailable, match=why):
            collect(kernel)
        assert (kernel.entries, len(kernel.made)) == ({}, 1)

    def test_no_provider(self) -> None:
        with pytest.raises(EvidenceUnavailable, match="no driver") as failed:
            collect(KernelTsm(echo, provider=None))
        assert "modprobe" in str(failed.value.hint)

    def test_the_provider_goes_in_between(self) -> None:
        kernel = KernelTsm(echo)

        def before(_operation: str, _name: str, attribute: str) -> None:
            if attribute == "outblob":
                kernel.provider = None

        kernel.before = before
        with pytest.raises(EvidenceUnavailable, match="no driver"):
            collect(kernel)
        assert kernel.entries == {}

    def test_an_empty_report_is_none(self) -> None:
        with pytest.raises(EvidenceUnavailable, match="0 bytes is no report"):
            tsm.collect(tsm.Request(DATA), ROOT, tree=KernelTsm(lambda _: (b"", b"", b"")))


class TestFiles:
    """The real tree, on a folder: no configfs, but the same calls."""

    def test_one_write_call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[bytes] = []
        true_write = os.write
        monkeypatch.setattr(os, "write", lambda to, data: calls.append(bytes(data)) or true_write(to, data))
        file = tmp_path / "inblob"
        file.touch()
        tsm.Files().write(file, DATA)
        assert (calls, file.read_bytes()) == ([DATA], DATA)

    def test_a_short_write_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "inblob"
        file.touch()
        monkeypatch.setattr(os, "write", lambda _to, _data: 63)
        with pytest.raises(OSError, match="63 of 64"):
            tsm.Files().write(file, DATA)

    def test_it_makes_no_files(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            tsm.Files().write(tmp_path / "inblob", DATA)

    def test_entries_and_reads(self, tmp_path: Path) -> None:
        tree = tsm.Files()
        tree.mkdir(tmp_path / "entry")
        (tmp_path / "large").write_bytes(bytes(200_000))
        assert tree.exists(tmp_path / "entry")
        assert tree.read(tmp_path / "large") == bytes(200_000)
        tree.rmdir(tmp_path / "entry")
        assert not tree.exists(tmp_path / "entry")

    def test_a_machine_without_configfs(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceUnavailable, match="configfs-tsm is not there") as failed:
            tsm.collect(tsm.Request(DATA), tmp_path / "no")
        assert "mount -t configfs" in str(failed.value.hint)
