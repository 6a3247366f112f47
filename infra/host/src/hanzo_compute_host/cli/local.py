"""A platform on this machine in the background: is it there, and if not, start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hanzo_compute import errors
from hanzo_compute_host.cli.home import read_credentials

if TYPE_CHECKING:
    from hanzo_compute.wiring import JobsClient

START_S: Final = 180.0
"""A platform whose interpreters are prepared answers within this time."""
_POLL_S: Final = 0.1
_TAIL: Final = 15


def find_running(home: Path) -> JobsClient | None:
    """The client of the platform of this home, if it answers and knows the key that the home holds."""
    from hanzo_compute import wiring

    found = read_credentials(home)
    if found is None:
        return None
    client = wiring.jobs_client(found.url, found.key)
    try:
        client.health()
        client.list_jobs(limit=1)
    except errors.ComputeError:
        return None
    return client


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        # As servers do: a port that only has connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(port: int) -> None:
    """Raise Conflict when something else listens on the port."""
    if not port_is_free(port):
        raise errors.Conflict(
            f"port {port} of 127.0.0.1 is taken by another program",
            hint=f"choose another with HZC_PORT, for example HZC_PORT={port + 1}",
        )


def prepare(progress: Callable[[str], None]) -> None:
    """Fetch and compile the interpreters, where that has not been done."""
    from hanzo_compute import wiring
    from hanzo_compute.config import default_cache

    wiring.prepare_interpreters(default_cache(os.environ).absolute(), progress)


def start(home: Path, port: int, progress: Callable[[str], None]) -> JobsClient:
    """Start `hzc up` in a session of its own and wait until it answers.

    Raises:
        Conflict: the port is taken.
        Unavailable: it ended, or did not answer in time; the message has the end of its log.
    """
    require_free(port)
    log = home / "log" / "up.log"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.parent.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "hanzo_compute_host.cli", "up", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HZC_HOME": str(home)},
            start_new_session=True,
        )
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < START_S:
        progress(f"starting the platform: {elapsed:.0f} s")
        # The exit is read first: what answers after it would be another platform.
        code = process.poll()
        if code is not None:
            raise _did_not_start(f"ended with exit code {code}", log)
        client = find_running(home) if (home / "credentials.json").exists() else None
        if client is not None:
            progress(f"the platform answers at {client.url}")
            return client
        time.sleep(_POLL_S)
    raise _did_not_start(f"did not answer within {START_S:.0f} s", log)


def _did_not_start(what: str, log: Path) -> errors.Unavailable:
    lines = log.read_text("utf-8", "backslashreplace").splitlines()[-_TAIL:]
    told = "; ".join(line.strip() for line in lines[-3:])
    return errors.Unavailable(f"`hzc up` {what}: {told or 'it said nothing'}", hint=f"read {log}, then: hzc doctor")
