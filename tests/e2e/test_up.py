"""`hzc up` on a terminal, and platforms side by side."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

from hanzo_compute_host.running import is_ready
from tests.support.live import HZC, Platform, until


def up_on_a_terminal(platform: Platform) -> str:
    """Start it on a terminal, stop it when it answers, and return what the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*HZC, "up"], env=platform.environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        until(lambda: is_ready(platform.url, 1.0), 120, "it answers")
        process.send_signal(signal.SIGINT)
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            shown += data
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.decode()


def test_the_owners_key_is_shown_once(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home")
    first = up_on_a_terminal(platform)
    assert platform.key in first.replace("\r\n", "")
    assert platform.key not in up_on_a_terminal(platform)
    logs = "".join(path.read_text() for path in (platform.home / "log").iterdir())
    assert platform.key not in logs


def test_platforms_side_by_side_are_apart(tmp_path: Path) -> None:
    with Platform(tmp_path / "one") as one, Platform(tmp_path / "two") as two:
        job = one.client().submit({"source": {"code": "print(1)", "language": "python"}}).job["id"]
        assert one.client().wait(job, timeout_s=200)["state"] == "succeeded"
        assert two.client().list_jobs().items == []
        assert two.hzc("ls", "--limit", "5").returncode == 0
        assert two.hzc("--key", one.key, "ls").returncode == 4
