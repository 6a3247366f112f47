"""Boxes of a job's data key, and data keys sealed to a runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanzo_compute.errors import InvalidRequest, NotFound, Rejected
from hanzo_compute.security import hpke, sealed
from hanzo_compute_host.cli import data_keys


@pytest.mark.parametrize("data", [b"", b"x", bytes(100_000)])
def test_a_box_opens_under_its_key_and_name_alone(data: bytes) -> None:
    key = sealed.new_key()
    box = sealed.seal(key, "stdout", data)
    assert len(box) == len(data) + sealed.OVERHEAD
    assert sealed.unseal(key, "stdout", box) == data
    assert sealed.seal(key, "stdout", data) != box
    for wrong_key, name, wrong in (
        (sealed.new_key(), "stdout", box),
        (key, "input", box),
        (key, "stdout", box[:-1]),
        (key, "stdout", box[:20] + bytes([box[20] ^ 1]) + box[21:]),
        (key, "stdout", b"hzc2" + box[4:]),
        (key, "stdout", b""),
        (key, "stdout", data),
    ):
        with pytest.raises(InvalidRequest):
            sealed.unseal(wrong_key, name, wrong)


def test_a_sealed_key_opens_for_its_recipient_job_and_attempt() -> None:
    (private, public), (other, _) = hpke.new_pair(), hpke.new_pair()
    box = hpke.seal(public, b"k" * 32, hpke.info("j-1", 1))
    assert len(box) == 80
    assert hpke.open_sealed(private, box, hpke.info("j-1", 1)) == b"k" * 32
    for key, info in ((other, hpke.info("j-1", 1)), (private, hpke.info("j-1", 2)), (private, hpke.info("j-11", 1))):
        with pytest.raises(InvalidRequest):
            hpke.open_sealed(key, box, info)
    for wrong in (bytes(32), b"", b"x" * 31, b"\x01" + bytes(31)):
        with pytest.raises(InvalidRequest):
            hpke.seal(wrong, b"k" * 32, b"")


def test_data_keys_are_private_files(tmp_path: Path) -> None:
    key, digest = data_keys.new(tmp_path)
    path = tmp_path / "data-keys" / f"{digest}.key"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert data_keys.find(tmp_path, digest) == key
    assert data_keys.new(tmp_path)[1] != digest
    with pytest.raises(NotFound):
        data_keys.find(tmp_path, "ab" * 32)
    path.write_bytes(bytes(32))
    with pytest.raises(Rejected, match="another key"):
        data_keys.find(tmp_path, digest)
