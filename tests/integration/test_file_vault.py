"""Keys in files: made once, whoever comes first; private; and whole, whatever happens while they are made."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hanzo_compute.adapters.local.vault import FileVault
from hanzo_compute.errors import ComputeError, InternalError, Unavailable
from hanzo_compute.ports import KeyKind
from tests.support.killed import file_steps, killed_at

ROOT = Path(__file__).parents[2]


def without_threads(function: str, folder: Path) -> None:
    """Run a function of this file in a process of its own, which may fork because it has no threads."""
    code = f"from {__name__} import Path, {function}; {function}(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=280)


def test_files_are_private(tmp_path: Path) -> None:
    vault = FileVault(tmp_path / "keys")
    vault.public_key("agent", KeyKind.P256)
    vault.data_key({})
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {"agent.pem": 0o600, "master.key": 0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    FileVault(tmp_path).public_key("log", KeyKind.ED25519)
    (tmp_path / "log.pem").chmod(mode)
    with pytest.raises(InternalError, match="by others") as refused:
        FileVault(tmp_path).public_key("log", KeyKind.ED25519)
    assert "chmod 600" in str(refused.value.hint)


def test_a_key_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FileVault(tmp_path).public_key("log", KeyKind.ED25519)
    if os.geteuid() == 0:
        os.chown(tmp_path / "log.pem", 4711, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InternalError, match=r"log\.pem"):
        FileVault(tmp_path).public_key("log", KeyKind.ED25519)


def _public(folder: Path, barrier: object, answers: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    answers.put(FileVault(folder).public_key("log", KeyKind.ED25519))  # type: ignore[attr-defined]


def race(rounds: Path) -> None:
    """Four processes make one key at once, again and again."""
    context = multiprocessing.get_context("fork")
    FileVault(rounds / "first").public_key("log", KeyKind.ED25519)  # what it imports is there before the start
    for number in range(30):
        barrier, answers = context.Barrier(4), context.SimpleQueue()
        folder = rounds / str(number)
        processes = [context.Process(target=_public, args=(folder, barrier, answers)) for _ in range(4)]
        for each in processes:
            each.start()
        for each in processes:
            each.join(90)
            assert each.exitcode == 0
        assert len({answers.get() for _ in processes}) == 1
        assert [path.name for path in folder.iterdir()] == ["log.pem"]


@pytest.mark.slow
def test_of_processes_at_once_the_first_wins(tmp_path: Path) -> None:
    without_threads("race", tmp_path)


def kills(rounds: Path) -> None:
    """A process is killed at each of the steps by which it makes a key."""
    FileVault(rounds / "first").public_key("log", KeyKind.ED25519)
    step, had_name = 0, set()
    while True:
        step += 1
        path = rounds / str(step) / "log.pem"
        make = partial(FileVault(path.parent).public_key, "log", KeyKind.ED25519)
        killed = killed_at(step, make, file_steps)
        before = path.read_bytes() if path.exists() else None
        public = FileVault(path.parent).public_key("log", KeyKind.ED25519)
        assert public == FileVault(path.parent).public_key("log", KeyKind.ED25519), f"step {step}"
        assert before in (None, path.read_bytes()), f"step {step}: another key has its name"
        assert [left.name for left in path.parent.iterdir()] == ["log.pem"], f"step {step}"
        if not killed:
            assert had_name == {True, False}
            return
        had_name.add(before is not None)


@pytest.mark.kill
@pytest.mark.slow
def test_a_process_that_is_killed_leaves_a_whole_key_or_none(tmp_path: Path) -> None:
    without_threads("kills", tmp_path)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef").write_bytes(b"-----BEGIN")
    assert FileVault(tmp_path).public_key("log", KeyKind.ED25519)
    assert [path.name for path in tmp_path.iterdir()] == ["log.pem"]


def rsa_key() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("data", [b"", b"rubbish", rsa_key()], ids=["empty", "rubbish", "rsa"])
def test_a_file_that_holds_no_key_is_told(tmp_path: Path, data: bytes) -> None:
    for name in ("log.pem", "master.key"):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    for use in (
        lambda: FileVault(tmp_path).public_key("log", KeyKind.ED25519),
        lambda: FileVault(tmp_path).data_key({}),
    ):
        with pytest.raises(InternalError, match="holds no key") as refused:
            use()
        assert "restore" in str(refused.value.hint)
        assert (tmp_path / "log.pem").read_bytes() == data


def test_a_process_reads_a_key_once(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    public, made = vault.public_key("log", KeyKind.ED25519), vault.data_key({})
    for path in tmp_path.iterdir():
        path.write_bytes(b"rubbish")
    assert vault.public_key("log", KeyKind.ED25519) == public
    assert vault.unwrap(made.wrapped, {}) == made.plaintext


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file")
    with pytest.raises(Unavailable, match="cannot be read or made"):
        FileVault(tmp_path / "keys").public_key("log", KeyKind.ED25519)


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(Unavailable, match="No space left") as refused:
            FileVault(tmp_path).public_key("log", KeyKind.ED25519)
        assert refused.value.retryable
    assert list(tmp_path.iterdir()) == []
    assert FileVault(tmp_path).public_key("log", KeyKind.ED25519)


def test_a_disk_that_takes_no_byte_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(Unavailable) as refused:
            FileVault(tmp_path).data_key({})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.strerror(errno.EFBIG) in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_no_key_gets_into_what_is_shown(tmp_path: Path) -> None:
    vault = FileVault(tmp_path)
    made = vault.data_key({"a": "b"})
    secrets = [made.plaintext, (tmp_path / "master.key").read_bytes()]
    shown = [repr(vault), repr(made)]
    try:
        vault.unwrap(made.wrapped, {})
    except ComputeError as error:
        shown += [repr(error), error.message, str(error.data)]
    assert len(shown) == 5
    for secret in secrets:
        assert all(secret.hex() not in text and repr(secret) not in text for text in shown)


def test_each_epoch_has_a_master_key_of_its_own(tmp_path: Path) -> None:
    vault, contexts = FileVault(tmp_path), [{"job": "j"}, {"job": "j", "epoch": "1"}, {"job": "j", "epoch": "2"}]
    keys = [vault.data_key(context) for context in contexts]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["master-1.key", "master-2.key", "master.key"]
    again = FileVault(tmp_path)
    assert [again.unwrap(key.wrapped, context) for key, context in zip(keys, contexts, strict=True)] == [
        key.plaintext for key in keys
    ]
    with pytest.raises(ComputeError):
        again.unwrap(keys[1].wrapped, contexts[2])
    (tmp_path / "master-1.key").unlink()  # nothing of that epoch is needed any more
    last = FileVault(tmp_path)
    assert last.unwrap(keys[2].wrapped, contexts[2]) == keys[2].plaintext
    with pytest.raises(ComputeError):
        last.unwrap(keys[1].wrapped, contexts[1])
    with pytest.raises(InternalError, match="no epoch"):
        last.data_key({"epoch": "../1"})
