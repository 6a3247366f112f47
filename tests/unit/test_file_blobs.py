"""Blobs as files: damage, leftovers, permissions, the key."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from hanzo_compute.adapters.local.blobs import FileBlobs
from hanzo_compute.adapters.memory import ManualClock
from hanzo_compute.errors import InternalError, InvalidRequest, PermissionDenied, Unavailable

DATA = b"data"


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path, ManualClock(), "http://127.0.0.1:1/")


def files(home: Path) -> list[Path]:
    return [path for path in (home / "blobs").rglob("*") if path.is_file()]


def test_a_blob_is_a_private_file_named_by_its_id(blobs: FileBlobs, tmp_path: Path) -> None:
    blob = blobs.put("t", DATA)
    assert files(tmp_path) == [blobs.path("t", blob)]
    assert blobs.path("t", blob) == tmp_path / "blobs" / "t" / blob[3:5] / blob
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) == 0o700


@pytest.mark.parametrize("damaged", [b"dat", b"date", b""])
def test_damage_is_noticed_and_healed_by_another_put(blobs: FileBlobs, damaged: bytes) -> None:
    blob = blobs.put("t", DATA)
    blobs.path("t", blob).write_bytes(damaged)
    with pytest.raises(InternalError, match="damaged"):
        blobs.get("t", blob)
    assert blobs.put("t", DATA) == blob
    assert blobs.get("t", blob) == DATA


def test_an_upload_is_invisible_until_commit_and_leaves_nothing(blobs: FileBlobs, tmp_path: Path) -> None:
    blob = blobs.put("other", DATA)
    upload = blobs.open_upload("t", blob, len(DATA))
    upload.write(b"da")
    assert blobs.size("t", blob) is None
    upload.abort()
    upload = blobs.open_upload("t", blob, len(DATA))
    upload.write(b"da")
    with pytest.raises(InvalidRequest, match="more than the 4 bytes"):
        upload.write(b"tax")
    upload = blobs.open_upload("t", blob, len(DATA))
    upload.write(b"dat")
    with pytest.raises(InvalidRequest, match="3 bytes"):
        upload.commit()
    assert files(tmp_path) == [blobs.path("other", blob)]
    upload = blobs.open_upload("t", blob, len(DATA))
    upload.write(DATA)
    upload.commit()
    upload.abort()
    assert blobs.get("t", blob) == DATA


def test_what_a_killed_process_left_is_removed_and_what_goes_on_stays(blobs: FileBlobs, tmp_path: Path) -> None:
    blob = blobs.put("other", DATA)
    upload = blobs.open_upload("t", blob, len(DATA))
    upload.write(DATA)
    (tmp_path / "blobs" / ".new" / "0123456789abcdef").write_bytes(b"da")  # nobody has it locked any more
    FileBlobs(tmp_path, ManualClock(), "http://127.0.0.1:1")
    assert len(list((tmp_path / "blobs" / ".new").iterdir())) == 1
    upload.commit()
    assert blobs.get("t", blob) == DATA
    assert list((tmp_path / "blobs" / ".new").iterdir()) == []


def test_processes_agree_on_one_private_key(tmp_path: Path, blobs: FileBlobs) -> None:
    other = FileBlobs(tmp_path, ManualClock(), "http://127.0.0.1:1")
    blob = blobs.put("t", DATA)
    url = urlsplit(other.presign_get("t", blob).url)
    found = blobs.verify("GET", url.path, dict(parse_qsl(url.query)), ManualClock().now_ms())
    assert found == ("t", blob, None)
    key = tmp_path / "keys" / "presign.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    assert list(key.parent.iterdir()) == [key]


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "POST", "get", ""])
def test_a_url_is_not_good_for_methods_nobody_signed(blobs: FileBlobs, method: str) -> None:
    url = urlsplit(blobs.presign_get("t", blobs.put("t", DATA)).url)
    with pytest.raises(PermissionDenied):
        blobs.verify(method, url.path, dict(parse_qsl(url.query)), 0)


def test_a_key_that_is_none_is_refused(tmp_path: Path, blobs: FileBlobs) -> None:
    (tmp_path / "keys" / "presign.key").write_bytes(b"short")
    with pytest.raises(InternalError, match="not a key"):
        FileBlobs(tmp_path, ManualClock(), "http://127.0.0.1:1")


@pytest.mark.parametrize("mode", [0o644, 0o622, 0o660])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, blobs: FileBlobs, mode: int) -> None:
    (tmp_path / "keys" / "presign.key").chmod(mode)
    with pytest.raises(InternalError, match="by others"):
        FileBlobs(tmp_path, ManualClock(), "http://127.0.0.1:1")


def test_a_disk_that_takes_nothing_is_unavailable(
    tmp_path: Path, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        blobs.put("t", b"data")
    monkeypatch.undo()
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
    assert blobs.get("t", blobs.put("t", b"data")) == b"data"


def test_a_blob_whose_folder_did_not_sync_is_not_there(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be taken for stored by whoever asks for its size, and its name may be gone after a power cut."""
    blobs.put("t", b"makes the folders")
    upload = blobs.open_upload("t", blob := blobs.put("other", DATA), len(DATA))
    upload.write(DATA)
    real = os.fsync

    def fails_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_folders)
    with pytest.raises(Unavailable, match="could not be stored: Input/output error") as told:
        upload.commit()
    assert "failing" in str(told.value.hint)
    assert blobs.size("t", blob) is None
    with pytest.raises(Unavailable, match="could not be stored"):
        blobs.put("other", DATA)  # it is there, and whether it stays is not known
    monkeypatch.undo()
    assert blobs.put("t", DATA) == blob
    assert blobs.get("t", blob) == DATA


def test_a_blob_that_cannot_be_opened_now_is_no_defect(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = blobs.put("t", DATA)

    def fails(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(Unavailable, match="Too many open files"):
        blobs.get("t", blob)
