"""A real platform: `hzc up` in a folder of its own, its processes by name, and clients for it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from hanzo_compute import wiring
from hanzo_compute.adapters.http import JobsClient
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.config import Config
from hanzo_compute.security.authorizer import Role
from hanzo_compute.services import credentials
from hanzo_compute_host.running import is_ready

T = TypeVar("T")
HZC = (sys.executable, "-m", "hanzo_compute_host.cli")

ECHO = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "done\\n")
  (func (export "_start") (local $n i32)
    (loop $spin
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $spin (i32.lt_u (local.get $n) (i32.const 20000000))))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 5))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))
"""
"""A module that counts to twenty million, some tens of milliseconds, and says so."""


def compiled(text: str) -> bytes:
    """The binary of a module in text form."""
    import wasmtime

    return bytes(wasmtime.wat2wasm(text))


_claims: list[socket.socket] = []


def free_port() -> int:
    """A port on loopback for a platform, also while it is down: no other test process gets it, and it is below those
    that the system gives to connections."""
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert below > 4096, "there are too few ports that the system leaves alone (net.ipv4.ip_local_port_range)"
    while True:
        port = below // 2 + secrets.randbelow(below // 2)
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe, suppress(OSError):
            claim.bind(f"\0hzc-test-port-{port}")  # ends with this process
            probe.bind(("127.0.0.1", port))
            _claims.append(claim)
            return port
        claim.close()


def until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Wait until ``condition`` gives something true, and return it."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Platform:
    """`hzc up` as a child process. Fast to start again after a kill."""

    def __init__(
        self,
        home: Path,
        *,
        fronts: int = 1,
        agents: int = 1,
        slots: int = 2,
        extra: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.log = log or home.parent / f"{home.name}.log"
        """What `hzc up` says."""
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.agents = agents
        """Agents of the next start."""
        self.settings = dict(extra or {})
        """Environment variables besides those that every platform gets."""
        self._others = ("--fronts", str(fronts), "--slots", str(slots))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _options(self) -> tuple[str, ...]:
        return (*self._others, "--agents", str(self.agents))

    @property
    def environment(self) -> dict[str, str]:
        """What `hzc` needs to talk to this platform."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HZC_") or name == "HZC_CACHE"}
        return kept | self.settings | {"HZC_HOME": str(self.home), "HZC_PORT": str(self.port)}

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.begin()
        assert self.answers_or_ends(), f"it has ended: {self.log.read_text()[-500:]}"
        # A front answers before the credentials are made.
        until((self.home / "credentials.json").exists, 300, f"the platform has an owner; see {self.log.name}")

    def begin(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*HZC, "up", *self._options], env=self.environment, stdout=log, stderr=log)

    def answers_or_ends(self) -> bool:
        """Wait until it has started, with all that clients need, or its process has ended; whether it answers."""
        process = self._process
        assert process is not None
        published = self.home / "run" / "platform.json"
        until(lambda: process.poll() is not None or published.exists(), 300, f"{self.home} starts or ends")
        until(lambda: process.poll() is not None or is_ready(self.url, 1.0), 300, f"{self.home} answers or ends")
        return process.poll() is None

    def fails_to_start(self, seconds: float = 240) -> tuple[int, str]:
        """Start it where it cannot run; returns the exit code and what it said."""
        done = self.hzc("up", *self._options, timeout=seconds)
        return done.returncode, (done.stdout + done.stderr).decode()

    def stop(self) -> int:
        """End it gracefully; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def kill_supervisor(self) -> None:
        """kill -9 of `hzc up` itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def pid(self, name: str) -> int | None:
        """Process id of one of its processes: writer, front-1, pump, agent-1, … None while it is down."""
        try:
            found = json.loads((self.home / "run" / "platform.json").read_text())
        except FileNotFoundError:
            return None
        return next((each["pid"] for each in found["processes"] if each["name"] == name), None)

    def processes(self) -> list[int]:
        """Every process that has this platform's folder in its environment, whoever its parent is."""
        mark = f"HZC_HOME={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def hzc(
        self, *arguments: str, stdin: bytes = b"", timeout: float = 240, **extra: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command of the CLI against this platform."""
        environment = self.environment | extra
        return subprocess.run(
            [*HZC, *arguments], env=environment, input=stdin, capture_output=True, timeout=timeout, check=False
        )

    @property
    def key(self) -> str:
        """The owner's key."""
        found: str = json.loads((self.home / "credentials.json").read_text())["key"]
        return found

    def client(self) -> JobsClient:
        """A client of the owner."""
        return wiring.jobs_client(self.url, self.key)

    def tenant(self, name: str, role: Role = Role.OWNER) -> str:
        """A new key for another tenant."""
        container = wiring.local(Config("local", self.home, self.url, self.home))
        assert isinstance(container.commits, WriterClient)
        try:
            key = credentials.create(container, name, role, "test")
            ticket = container.commits.take()
            if ticket is not None:
                container.commits.wait(ticket)
        finally:
            container.commits.close()
        return key

    def __enter__(self) -> Platform:
        self.home.mkdir(mode=0o700, exist_ok=True)
        if self._process is None or self._process.poll() is not None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.extend(map(int, (task / "children").read_text().split()))
    except OSError:
        return []
    return found


def pages(client: JobsClient) -> Iterator[dict[str, object]]:
    """All jobs of a tenant."""
    cursor = None
    while True:
        page = client.list_jobs(cursor=cursor, limit=100)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return
