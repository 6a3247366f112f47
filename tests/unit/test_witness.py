"""The user as a witness: keys and checkpoints are pinned, and what does not go with them is refused."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.errors import ComputeError, Conflict, InvalidRequest, NotFound, Rejected, Unavailable
from hanzo_compute.ports import KeyKind
from hanzo_compute.services import log
from hanzo_compute.transparency.checkpoint import Checkpoint, note
from hanzo_compute_host.cli import witness
from hanzo_compute_host.cli.known import FILE, Known, open_known
from tests.support.proofs import Proofs, cancelled
from tests.support.stepped import Platform


def look(platform: Platform, home: Path) -> int:
    with open_known(home) as known:
        return witness.look(Proofs(platform), known)[0].size  # type: ignore[arg-type]


def test_a_log_that_grows_is_followed(tmp_path: Path) -> None:
    platform = Platform()
    for count in (1, 2, 5, 300):
        cancelled(platform, count)
        size = look(platform, tmp_path)
        assert look(platform, tmp_path) == size
    assert size == 308
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    body = json.loads((tmp_path / FILE).read_text())
    assert list(body["addresses"]) == [Proofs.url]


@pytest.mark.parametrize("count", [1, 3, 4, 8])
def test_a_rewritten_log_is_caught(tmp_path: Path, count: int) -> None:
    """The same key signs another past: shorter, as long, or longer."""
    honest, forger = Platform(), Platform()
    cancelled(honest, 4)
    assert look(honest, tmp_path) == 4
    forger.ctx.ids.new("x", 0)  # from here on its jobs have other ids and salts
    forger.ctx.ids.token()
    cancelled(forger, count)
    assert log.verifier_key(forger.ctx) == log.verifier_key(honest.ctx)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(Rejected, match="has been rewritten") as refused:
        look(forger, tmp_path)
    assert refused.value.exit_code == 4
    assert refused.value.data["seen"]["size"] == 4
    assert (tmp_path / FILE).read_bytes() == before
    assert look(honest, tmp_path) == 4


def test_a_new_key_at_the_same_address_is_caught(tmp_path: Path) -> None:
    platform = Platform()
    cancelled(platform, 2)
    look(platform, tmp_path)
    platform.ctx.vault.__init__(Random(7))  # type: ignore[misc]
    cancelled(platform, 1)
    with pytest.raises(Rejected, match="and was hanzo-compute/log/") as refused:
        look(platform, tmp_path)
    assert refused.value.data["name"] == "platform_key"
    with open_known(tmp_path) as known:
        assert known.forget(Proofs.url)
    assert look(platform, tmp_path) == 3
    with open_known(tmp_path) as known:
        assert not known.forget("http://elsewhere")


class Liar(Proofs):
    """Shows a checkpoint with something changed."""

    def __init__(self, platform: Platform, **changes: Any) -> None:
        super().__init__(platform)
        self.changes = changes

    def checkpoint(self) -> dict[str, Any]:
        return super().checkpoint() | self.changes


@pytest.mark.parametrize("changes", [{"key": "none"}, {"key": 7}, {"note": "x"}, {"note": None}])
def test_a_checkpoint_that_is_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    platform = Platform()
    cancelled(platform, 2)
    with pytest.raises(Rejected), open_known(tmp_path) as known:
        witness.look(Liar(platform, **changes), known)  # type: ignore[arg-type]
    assert not (tmp_path / FILE).exists()


def test_the_first_platform_of_a_file_is_pinned_and_no_other_is_believed(tmp_path: Path) -> None:
    one, two = Platform(), Platform()
    two.ctx.vault.__init__(Random(8))  # type: ignore[misc]
    (job,), (other,) = cancelled(one, 1), cancelled(two, 1)
    with open_known(tmp_path) as known:
        receipt = Proofs(one).receipt(job)
        assert witness.verified(receipt, known, job=job, platform=None, agents=set()).job == job
        assert "is known from now on" in known.news[0]
        with pytest.raises(Rejected, match="not known here") as refused:
            witness.verified(Proofs(two).receipt(other), known, job=None, platform=None, agents=set())
        assert (refused.value.data["name"], refused.value.exit_code) == ("platform_key", 4)
        key = log.verifier_key(two.ctx)
        assert witness.verified(Proofs(two).receipt(other), known, job=None, platform=key, agents=set()).job == other


def test_a_receipt_of_a_fork_of_the_size_that_was_seen(tmp_path: Path) -> None:
    honest, forger = Platform(), Platform()
    cancelled(honest, 3)
    look(honest, tmp_path)
    forger.ctx.ids.token()
    jobs = cancelled(forger, 3)
    with open_known(tmp_path) as known, pytest.raises(Rejected, match="another log"):
        witness.verified(Proofs(forger).receipt(jobs[0]), known, job=None, platform=None, agents=set())


def test_agents_are_pinned_by_name() -> None:
    known = Known({})
    assert known.agent("log", "a", "11")
    assert known.agent("log", "a", "11")
    assert not known.agent("log", "a", "22")
    assert known.agent("log", "b", "22")
    assert known.agent("other", "a", "22")


@pytest.mark.parametrize("text", ["", "x", "[]", '{"platforms": 3}', "\x00"])
def test_pins_that_cannot_be_read_are_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InvalidRequest, match="keys that you trust"), open_known(tmp_path):
        pass
    assert (tmp_path / FILE).read_text() == text


def test_two_processes_do_not_lose_each_others_pins(tmp_path: Path) -> None:
    def pin(number: int) -> None:
        with open_known(tmp_path) as known:
            known.agent("log", str(number), "key")

    threads = [threading.Thread(target=pin, args=(number,)) for number in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with open_known(tmp_path) as known:
        assert not any(known.agent("log", str(number), "another") for number in range(20))


def test_a_vault_is_what_makes_the_key() -> None:
    assert log.verifier_key(Platform().ctx).public == MemoryVault(Random(1)).public_key("log", KeyKind.ED25519)[-32:]


class Stale(Proofs):
    """Shows an older log than it has."""

    def __init__(self, platform: Platform, shown: Platform) -> None:
        super().__init__(platform)
        self.shown = shown

    def checkpoint(self) -> dict[str, Any]:
        return Proofs(self.shown).checkpoint()


def test_a_log_that_went_back_is_caught(tmp_path: Path) -> None:
    """Even to a true beginning of it: what was newest cannot become older."""
    now, before = Platform(), Platform()
    for platform in (now, before):
        cancelled(platform, 3)
    cancelled(now, 2)
    assert look(now, tmp_path) == 5
    with pytest.raises(Rejected, match="older than one that was seen"), open_known(tmp_path) as known:
        witness.look(Stale(now, before), known)  # type: ignore[arg-type]
    assert look(now, tmp_path) == 5


def test_an_empty_log_is_never_signed(tmp_path: Path) -> None:
    platform = Platform()
    cancelled(platform, 5)
    key = log.verifier_key(platform.ctx)
    sign = lambda message: platform.ctx.vault.sign(log.KEY, KeyKind.ED25519, message)  # noqa: E731
    empty = note(Checkpoint(key.name, 0, b"\7" * 32), key, sign)
    for _ in range(2):  # as the first that is seen, and after another
        with pytest.raises(Rejected, match="empty"), open_known(tmp_path) as known:
            witness.look(Liar(platform, note=empty), known)  # type: ignore[arg-type]
        look(platform, tmp_path)


class Refusing(Proofs):
    """Does not prove what it has signed."""

    def __init__(self, platform: Platform, error: ComputeError) -> None:
        super().__init__(platform)
        self.error = error

    def consistency(self, old: int, new: int) -> list[bytes]:
        raise self.error


@pytest.mark.parametrize("error", [InvalidRequest("no"), NotFound("no"), Conflict("no")])
def test_a_platform_that_will_not_prove_it_is_caught(tmp_path: Path, error: ComputeError) -> None:
    platform = Platform()
    cancelled(platform, 2)
    look(platform, tmp_path)
    cancelled(platform, 2)
    with pytest.raises(Rejected, match="has been rewritten"), open_known(tmp_path) as known:
        witness.look(Refusing(platform, error), known)  # type: ignore[arg-type]
    with pytest.raises(Unavailable), open_known(tmp_path) as known:
        witness.look(Refusing(platform, Unavailable("later")), known)  # type: ignore[arg-type]


def test_pins_of_one_platform_do_not_touch_anothers() -> None:
    known = Known({})
    assert known.agent("log", "a/b", "11")
    assert known.agent("log/a", "b", "22")
    assert known.agent("log", "a/b", "11")
    known._set("addresses", "http://one", "log")
    known._set("addresses", "http://two", "log")
    assert known.forget("http://one")
    assert known.agent("log/a", "b", "22")
    assert not known.forget("http://two")


@pytest.mark.parametrize(
    "text",
    [
        '{"platforms": {"a": 5}}',
        '{"platforms": {"a": "x"}}',
        '{"checkpoints": {"a": 5}}',
        '{"agents": {"a": "b"}}',
        '{"agents": {"a": {"b": 5}}}',
        "[" * 100_000,
    ],
)
def test_pins_of_wrong_forms_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InvalidRequest, match="keys that you trust"), open_known(tmp_path):
        pass


def test_pins_that_cannot_be_locked_can_be_used(tmp_path: Path) -> None:
    with open_known(tmp_path) as known:
        known.agent("log", "a", "11")
    (tmp_path / f"{FILE}.lock").unlink()
    (tmp_path / f"{FILE}.lock").mkdir()  # as root is not stopped by modes
    with open_known(tmp_path) as known:
        assert not known.agent("log", "a", "22")
