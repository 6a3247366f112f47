"""A front that has few descriptors: it refuses what it cannot hold, keeps what it has, and recovers."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from hanzo_compute_host.running import is_ready
from tests.support.live import ECHO, Platform, compiled, until
from tests.support.raw import Raw, Response, ask, head, open_files

FILES = 512
ROOM = (FILES - 128) // 2


@pytest.mark.slow
@pytest.mark.kill
def test_a_front_with_few_descriptors_refuses_and_recovers(tmp_path: Path) -> None:
    with Platform(tmp_path / "home") as platform:
        before = platform.pid("front-1")
        assert before is not None
        resource.prlimit(parent(before), resource.RLIMIT_NOFILE, (FILES, FILES))
        os.kill(before, signal.SIGKILL)
        until(lambda: platform.pid("front-1") not in (None, before) and is_ready(platform.url, 1), 120, "a new front")
        pid = platform.pid("front-1")
        assert pid is not None
        client = platform.client()
        module = client.upload_blob(compiled(ECHO))
        inside = Raw(platform.port)
        assert inside.send(head("GET", "/healthz")).read().status == 200

        crowd = [Raw(platform.port) for _ in range(ROOM + 40)]
        told = until(lambda: refused(platform.port), 120, "a connection is refused")
        assert told.headers["retry-after"] == "1"
        assert told.problem()["code"] == "unavailable"
        assert open_files(pid) <= FILES - 64
        assert inside.send(head("GET", "/healthz")).read().status == 200
        for raw in crowd:
            raw.close()

        until(lambda: ask(platform.port, head("GET", "/healthz")).status == 200, 120, "it recovers")
        job = client.submit({"source": {"module": module}}).job["id"]
        assert client.wait(job, timeout_s=200)["state"] == "succeeded"
        assert platform.pid("front-1") == pid
        inside.close()


def refused(port: int) -> Response | None:
    answer = ask(port, head("GET", "/healthz"))
    return answer if answer.status == 503 else None


def parent(pid: int) -> int:
    """The parent of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])
