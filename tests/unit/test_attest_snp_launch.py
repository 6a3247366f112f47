"""Launch digests: the library's against a computation of our own, from the layouts of the specifications."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from uuid import UUID

import pytest

from hanzo_compute.attestation.snp import launch
from hanzo_compute.errors import InvalidRequest

END = 0x1_0000_0000
RESET = 0x0080_B004
SIZE = 2 * 4096
HASHES_AT = 0x80_FC00
NORMAL, VMSA, ZERO, SECRETS, CPUID = 1, 2, 3, 5, 6
SECTIONS = [(0x80_0000, 0x9000, 1), (0x80_D000, 0x1000, 2), (0x80_E000, 0x1000, 3), (0x80_F000, 0x1000, 0x10)]
MILAN = 0x00A00F11
"""CPUID of family 19h, model 1, stepping 1."""


def entry(guid: str, data: bytes) -> bytes:
    return data + struct.pack("<H16s", len(data) + 18, UUID(guid).bytes_le)


def firmware(folder: Path, sections: list[tuple[int, int, int]] = SECTIONS) -> Path:
    """An OVMF of two pages: its table is at the end, and what it asks the firmware of the processor for before."""
    metadata = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", *each) for each in sections)
    table = entry("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", 1024))
    table += entry("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", HASHES_AT, 0x400))
    table += entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", RESET))
    table += struct.pack("<H16s", len(table) + 18, UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le)
    raw = bytearray(bytes(range(256)) * (SIZE // 256))
    raw[-1024 : -1024 + len(metadata)] = metadata
    raw[-32 - len(table) : -32] = table
    path = folder / "OVMF.fd"
    path.write_bytes(raw)
    return path


class Digest:
    """PAGE_INFO after PAGE_INFO: what the firmware of the processor does for each page."""

    def __init__(self) -> None:
        self.now = bytes(48)

    def page(self, kind: int, at: int, content: bytes | None = None) -> None:
        measured = hashlib.sha384(content).digest() if content is not None else bytes(48)
        info = self.now + measured + struct.pack("<HBBBBBBQ", 0x70, kind, 0, 0, 0, 0, 0, at)
        self.now = hashlib.sha384(info).digest()


def vmsa(eip: int, cpuid: int) -> bytes:
    """The registers that QEMU and KVM start a processor with (AMD 24593, table B-4)."""
    page = bytearray(4096)

    def put(at: int, form: str, *values: int) -> None:
        struct.pack_into(form, page, at, *values)

    for at, kind in ((0x00, 0x93), (0x20, 0x93), (0x30, 0x93), (0x40, 0x93), (0x50, 0x93), (0x60, 0), (0x70, 0x82)):
        put(at, "<HHIQ", 0, kind, 0xFFFF, 0)
    put(0x10, "<HHIQ", 0xF000, 0x9B, 0xFFFF, eip & 0xFFFF0000)
    put(0x80, "<HHIQ", 0, 0, 0xFFFF, 0)
    put(0x90, "<HHIQ", 0, 0x8B, 0xFFFF, 0)
    put(0xD0, "<Q", 0x1000)
    put(0x148, "<QQQ", 0x40, 0, 0x10)
    put(0x160, "<QQQQ", 0x400, 0xFFFF0FF0, 2, eip & 0xFFFF)
    put(0x268, "<Q", 0x0007040600070406)
    put(0x310, "<Q", cpuid)
    put(0x3B0, "<Q", 1)
    put(0x3E8, "<Q", 1)
    put(0x408, "<IHHH", 0x1F80, 0, 0, 0x37F)
    return bytes(page)


def expected(raw: bytes, vcpus: int, hashes: bytes | None = None) -> bytes:
    digest = Digest()
    for at in range(0, len(raw), 4096):
        digest.page(NORMAL, END - len(raw) + at, raw[at : at + 4096])
    for at in range(0x80_0000, 0x80_9000, 4096):
        digest.page(ZERO, at)
    digest.page(SECRETS, 0x80_D000)
    digest.page(CPUID, 0x80_E000)
    if hashes is None:
        digest.page(ZERO, 0x80_F000)
    else:
        digest.page(NORMAL, 0x80_F000, hashes)
    for index in range(vcpus):
        digest.page(VMSA, 0xFFFF_FFFF_F000, vmsa(RESET if index else 0xFFFFFFF0, MILAN))
    return digest.now


def hash_table(kernel: bytes, initrd: bytes, cmdline: bytes) -> bytes:
    parts = [
        ("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", cmdline + b"\0"),
        ("44baf731-3a2f-4bd7-9af1-41e29169781d", initrd),
        ("4de79437-abd2-427f-b835-d5b172d2045b", kernel),
    ]
    rows = b"".join(UUID(guid).bytes_le + struct.pack("<H", 50) + hashlib.sha256(data).digest() for guid, data in parts)
    table = UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le + struct.pack("<H", 18 + len(rows)) + rows
    return (bytes(HASHES_AT & 0xFFF) + table).ljust(4096, b"\0")


@pytest.mark.parametrize("vcpus", [1, 2, 5])
def test_of_a_disk(tmp_path: Path, vcpus: int) -> None:
    path = firmware(tmp_path)
    assert launch.digest(path, vcpus=vcpus, vcpu="EPYC-Milan") == expected(path.read_bytes(), vcpus)


@pytest.mark.parametrize("initrd", [b"", b"initrd"])
def test_of_a_kernel(tmp_path: Path, initrd: bytes) -> None:
    path, kernel = firmware(tmp_path), tmp_path / "kernel"
    kernel.write_bytes(b"kernel")
    given = tmp_path / "initrd"
    given.write_bytes(initrd)
    found = launch.digest(
        path, vcpus=2, vcpu="EPYC-Milan", kernel=kernel, initrd=given if initrd else None, cmdline="console=ttyS0"
    )
    assert found == expected(path.read_bytes(), 2, hash_table(b"kernel", initrd, b"console=ttyS0"))


def test_each_part_counts(tmp_path: Path) -> None:
    path, kernel = firmware(tmp_path), tmp_path / "kernel"
    kernel.write_bytes(b"kernel")
    found = {
        launch.digest(path, vcpus=1),
        launch.digest(path, vcpus=2),
        launch.digest(path, vcpus=1, vcpu="EPYC-Genoa"),
        launch.digest(path, vcpus=1, features=0x21),
        launch.digest(path, vcpus=1, monitor="ec2"),
        launch.digest(path, vcpus=1, monitor="gce"),
        launch.digest(path, vcpus=1, kernel=kernel),
        launch.digest(path, vcpus=1, kernel=kernel, cmdline="quiet"),
    }
    assert len(found) == 8


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    path, kernel = firmware(tmp_path), tmp_path / "kernel"
    kernel.write_bytes(b"kernel")
    with pytest.raises(InvalidRequest, match="1 to 1024"):
        launch.digest(path, vcpus=0)
    with pytest.raises(InvalidRequest, match="no model"):
        launch.digest(path, vcpus=1, vcpu="486")
    with pytest.raises(InvalidRequest, match="only with a kernel"):
        launch.digest(path, vcpus=1, cmdline="quiet")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        launch.digest(tmp_path / "none", vcpus=1)
    for content in (b"", bytes(100), bytes(4096)):
        (tmp_path / "none").write_bytes(content)
        with pytest.raises(InvalidRequest, match="cannot be measured"):
            launch.digest(tmp_path / "none", vcpus=1)
    with pytest.raises(InvalidRequest, match="SNP_KERNEL_HASHES"):
        launch.digest(firmware(tmp_path, SECTIONS[:3]), vcpus=1, kernel=kernel)
