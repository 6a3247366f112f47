"""A writer and one HTTP process in front of it: the platform's own, or the one that it is compared with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hanzo_compute import wiring
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.config import Config
from hanzo_compute.security.authorizer import Role
from hanzo_compute.services import credentials
from hanzo_compute_host import manifest
from hanzo_compute_host.process import OFF_AWS
from hanzo_compute_host.running import is_ready
from tests.bench import cpu
from tests.bench.cpu import Cpu
from tests.support.live import until
from tests.support.writer import WriterProcess

ROOT = Path(__file__).resolve().parents[2]
OURS = "hanzo_compute_host.front"
FASTAPI = "tests.bench.fastapi_app"


@dataclass(frozen=True)
class Server:
    """Processes that run, and a tenant's key that is good there. No pump and no agent: only requests cost CPU."""

    port: int
    key: str
    front: int
    writer: int

    def readings(self) -> dict[str, Cpu]:
        """CPU so far."""
        return {"front": cpu.of(self.front), "writer": cpu.of(self.writer)}


def container(home: Path) -> wiring.Container:
    """The ports on a state folder, for the benchmark's own process."""
    limits = {source.name: source.max_receives for source in manifest.load().queues}
    return wiring.local(Config("local", home, "http://127.0.0.1", home), max_receives=limits)


def durable(ctx: wiring.Container) -> None:
    """Wait until what was written through this container is on disk."""
    assert isinstance(ctx.commits, WriterClient)
    ticket = ctx.commits.take()
    if ticket is not None:
        ctx.commits.wait(ticket)


def new_key(home: Path) -> str:
    """An owner's key of a tenant."""
    ctx = container(home)
    assert isinstance(ctx.commits, WriterClient)
    try:
        key = credentials.create(ctx, credentials.DEFAULT_TENANT, Role.OWNER, "bench")
        durable(ctx)
    finally:
        ctx.commits.close()
    return key


@contextmanager
def serving(module: str, home: Path) -> Iterator[Server]:
    """Start a writer and ``module`` as a process that is handed its listening socket, and end them."""
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        writer = stack.enter_context(WriterProcess(home))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # Nothing runs the jobs here: all of them wait.
        bounds = dict.fromkeys(("HZC_TENANT_WAITING_MAX", "HZC_WAITING_MAX"), "1000000")
        ours = {"HZC_BACKEND": "local", "HZC_HOME": str(home), "HZC_BASE_URL": url, **bounds}
        log = stack.enter_context((home / "front.log").open("ab"))
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", module, "--fd", str(listener.fileno())],
                env={**os.environ, **OFF_AWS, **ours},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(),),
            )
        )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        until(lambda: is_ready(url, 1.0), 60, f"{module} answers; see {log.name}")
        yield Server(listener.getsockname()[1], new_key(home), process.pid, writer.pid)
