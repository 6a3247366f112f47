"""kill -9 at every step of a backup, a restore and a repair."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("name", "least"), [("backup", 20), ("restore", 40), ("repair", 30)])
def test_killed_at_every_step(name: str, least: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.support.killed", name, str(tmp_path)]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least
