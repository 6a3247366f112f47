"""Who claims a state folder removes what killed processes had begun there, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanzo_compute.model.stored import UNFINISHED
from hanzo_compute_host import running

OURS = (
    "keys/.0123456789abcdef",
    ".credentials.json.abcd1234",
    "run/.platform.json.0a_b1c2d",
    "keys/.runner.key.zzzzzzzz",
)
FOREIGN = (".bashrc", ".credentials.json", ".gitconfig.abcd1234", "keys/.runner.key", "run/.other", ".ssh/id")


def test_a_claim_removes_unfinished_files_of_ours_alone(tmp_path: Path) -> None:
    for name in (*OURS, *FOREIGN):
        path = tmp_path / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text("x")
    with running.claim(tmp_path):
        assert [name for name in OURS if (tmp_path / name).exists()] == []
    assert [name for name in FOREIGN if not (tmp_path / name).exists()] == []


def test_what_write_private_begins_is_what_a_claim_removes(tmp_path: Path) -> None:
    begun: list[str] = []

    class Killed(BaseException):
        pass

    def die(self: Path, target: Path) -> None:
        begun.append(self.name)
        raise Killed

    for name in ("credentials.json", "run/platform.json", "keys/runner.key"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", die)
            with pytest.raises(Killed):
                running.write_private(tmp_path / name, "{}")
    assert [name for name in begun if not UNFINISHED.fullmatch(name)] == []
    assert len(begun) == 3
