"""Runs a platform on this machine: its writer, fronts, pump and agents, from start to graceful stop."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final

from hanzo_compute.config import pool_names
from hanzo_compute.errors import ComputeError, Conflict, InternalError, Unavailable
from hanzo_compute_host import running
from hanzo_compute_host.children import Child, Spec, dies_with_parent, raise_descriptor_limit
from hanzo_compute_host.process import OFF_AWS
from hanzo_compute_host.rolling import Interrupted, Rolling

HOST: Final = "127.0.0.1"
START_S: Final = 120.0
"""The writer must have answered within this time after the start."""
DRAIN_S: Final = 12.0
"""Agents have this long to hand in or give back what they run."""
END_S: Final = 8.0
"""Any other process has this long to end when it is asked to."""
FORCED_END_S: Final = 2.0
LOG_CHECK_S: Final = 10.0
WRITER_NEWER: Final = 4
WRITER_DAMAGED: Final = 5
"""Exit codes of a writer that refuses the database as it is."""
WRITER_LOCKED: Final = 3
"""Exit code of a writer that finds another one: that of a platform which was killed a moment ago."""


class _StoppedEarly(Exception):
    """Somebody asked for a stop before everything was started."""


class Supervisor:
    """The platform of one state folder. ``port`` 0 takes a free one; ``say`` gets a line of text for each event."""

    def __init__(
        self,
        home: Path,
        port: int,
        fronts: int = 1,
        agents: int = 1,
        slots: int = os.cpu_count() or 1,
        *,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.home = home.absolute()
        self.url = ""
        self._port = port
        self._fronts = fronts
        self._agents = agents
        self._slots = slots
        self._say = say or _print
        self._children: list[Child] = []
        self._beside: list[Child] = []
        """Processes that come or go in a rolling restart."""
        self._rolling = Rolling(self._children, self._beside, self._roll_on, self._publish_if_possible, self._say)
        self._stop_signals = 0
        self._roll_signals = 0
        self._started_at = ""

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or SIGHUP; a second one ends everything at once. Main thread only.

        SIGUSR2 replaces all processes but this one: see :mod:`hanzo_compute_host.rolling`.

        Raises:
            Conflict: a platform runs there already, or the port is taken.
            Unavailable: it could not be started.
        """
        with running.claim(self.home), self._bind() as listener, self._signals(), contextlib.suppress(_StoppedEarly):
            raise_descriptor_limit()
            os.umask(0o077)  # whatever is made in the state folder, by us or our children, is ours alone
            self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self.url = f"http://{HOST}:{listener.getsockname()[1]}"
            (self.home / "log").mkdir(mode=0o700, exist_ok=True)
            try:
                self._start(listener)
                self._watch()
            finally:
                self._stop()

    # Start

    def _bind(self) -> socket.socket:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, self._port))
            listener.listen(2048)
        except OSError as error:
            listener.close()
            raise Conflict(
                f"cannot listen on {HOST}:{self._port}: {error.strerror}",
                hint="choose another port with HZC_PORT",
            ) from None
        return listener

    def _start(self, listener: socket.socket) -> None:
        writer = self._spawn("writer", "hanzo_compute.adapters.local.writer", "--home", str(self.home))
        for number in range(self._fronts):
            descriptor = listener.fileno()
            self._spawn(
                f"front-{number + 1}", "hanzo_compute_host.front", "--fd", str(descriptor), descriptor=descriptor
            )
        self._spawn("pump", "hanzo_compute_host.pump")
        # The others come up meanwhile: they need no credentials, and wait for the writer by themselves.
        self._provision(writer)
        pools = pool_names(os.environ)
        for number in range(self._agents):
            pool = pools[number % len(pools)]
            self._spawn(f"agent-{number + 1}", "hanzo_compute_agent", agent=f"local-{number + 1}", pool=pool)
        self._publish()

    def _spawn(
        self,
        name: str,
        module: str,
        *arguments: str,
        descriptor: int | None = None,
        agent: str | None = None,
        pool: str = "",
    ) -> Child:
        spec = Spec(
            name,
            module,
            arguments,
            self._environment(agent, pool),
            # The writer may finish its batch. The others have nothing to finish without it, and agents would
            # wait for the leases that they cannot give back.
            signal.SIGTERM if name == "writer" else signal.SIGKILL,
            () if descriptor is None else (descriptor,),
        )
        child = Child(spec, self.home / "log")
        self._children.append(child)
        child.start()
        return child

    def _environment(self, agent: str | None = None, pool: str = "") -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if name not in ("HZC_KEY", "HZC_KEY_FILE", "HZC_URL")
        }
        ours = {
            "HZC_BACKEND": "local",
            "HZC_BASE_URL": self.url,
            "HZC_HOME": str(self.home),
            "PYTHONUNBUFFERED": "1",
        }
        if agent is not None:
            ours |= {
                "HZC_AGENT_NAME": agent,
                "HZC_AGENT_SLOTS": str(self._slots),
                "HZC_KEY_FILE": str(self.home / "keys" / "runner.key"),
                "HZC_POOL": pool,
                "HZC_URL": self.url,
            }
        return {**inherited, **OFF_AWS, **ours}

    def _provision(self, writer: Child) -> None:
        """Wait for the writer, and make the credentials of the owner and of the agents."""
        known = self._owner_key()
        command = [sys.executable, "-m", "hanzo_compute_host.provision"]
        made = self._run(command if known else [*command, "--new-owner"], writer)
        running.write_private(self.home / "keys" / "runner.key", made["runner"] + "\n")
        key = made["owner"] or known
        running.write_private(
            self.home / "credentials.json", json.dumps({"url": self.url, "key": key}, indent=2) + "\n"
        )
        if made["owner"]:
            # Only a person sees it: what is not a terminal is a log file, which is kept.
            shown = f" (shown once): {key}" if sys.stdout.isatty() else ""
            self._say(f"made the owner's key{shown}, and wrote it to {self.home / 'credentials.json'}")

    def _owner_key(self) -> str | None:
        try:
            found = json.loads((self.home / "credentials.json").read_text("utf-8"))
            return str(found["key"]) if found["key"] else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _run(self, command: list[str], writer: Child) -> dict[str, Any]:
        deadline = time.monotonic() + START_S
        # Between fork and exec only one system call is made, and the supervisor has no other threads.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
            process_group=0,
            preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509
        ) as process:
            try:
                while process.poll() is None:
                    self._pause(0.5)
                    code = writer.ended()
                    if code == WRITER_LOCKED:
                        self._pause(0.2)
                        writer.start()
                    elif code is not None:
                        raise _no_writer(code, writer)
                    if self._stop_signals:
                        raise _StoppedEarly
                    if time.monotonic() > deadline:
                        raise Unavailable("the writer does not answer", hint=f"read {writer.log}")
                assert process.stdout is not None
                assert process.stderr is not None
                if process.returncode:
                    told = " ".join(process.stderr.read().decode(errors="replace").split()[-60:])
                    raise Unavailable(
                        f"the keys and credentials could not be made: {told}",
                        hint=f"if that names no cause, is the disk full? Read {writer.log}, then: hzc doctor",
                    )
                made: dict[str, Any] = json.loads(process.stdout.read())
                return made
            finally:
                if process.poll() is None:
                    process.kill()

    def _publish(self) -> None:
        processes = [
            {"name": child.spec.name, "pid": child.pid, "restarts": child.restarts} for child in self._children
        ]
        running.publish(
            self.home,
            {
                "pid": os.getpid(),
                "url": self.url,
                "started_at": self._started_at,
                "processes": processes,
                "restart": self._rolling.progress.as_json(),
            },
        )

    def _publish_if_possible(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end what runs
            self._publish()

    # Life

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def asked(number: int, frame: FrameType | None) -> None:
            self._stop_signals += 1

        def roll(number: int, frame: FrameType | None) -> None:
            self._roll_signals += 1

        def nothing(number: int, frame: FrameType | None) -> None:
            """A child has ended: the byte on the wakeup descriptor is what counts."""

        self._wakeup, end = socket.socketpair()
        self._wakeup.setblocking(False)
        end.setblocking(False)
        before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, nothing)
        before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, roll)
        fd_before = signal.set_wakeup_fd(end.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            end.close()
            self._wakeup.close()

    def _pause(self, seconds: float) -> None:
        """Sleep until a signal comes, at most ``seconds``."""
        if select.select([self._wakeup], [], [], max(0.0, seconds))[0]:
            self._wakeup.recv(4096)

    def _watch(self) -> None:
        ready = False
        logs_due = time.monotonic() + LOG_CHECK_S
        while not self._stop_signals:
            if not ready and running.is_ready(self.url, 0.3):
                ready = True
                self._say(f"the platform is ready at {self.url}")
            self._restart()
            if self._roll_signals:
                self._roll_signals = 0
                with contextlib.suppress(Interrupted):
                    self._rolling.run()
            if time.monotonic() >= logs_due:
                logs_due = time.monotonic() + LOG_CHECK_S
                for child in self._children:
                    child.rotate()
            due = [child.due for child in self._children if child.due is not None]
            self._pause(min([logs_due, *due]) - time.monotonic() if ready else 0.05)

    def _restart(self) -> None:
        changed = False
        for child in self._children:
            code = child.ended()
            if code is not None:
                wait = child.plan_restart()
                said = f": {child.last_line()}" if code > 0 and child.spec.name == "writer" else ""
                self._say(f"{child.spec.name} ended ({_cause(code)}), it starts again in {wait:.0f} s{said}")
                changed = True
            elif child.due is not None and child.due <= time.monotonic():
                changed = self._revived(child)
        if changed:
            self._publish_if_possible()

    def _revived(self, child: Child) -> bool:
        try:
            child.start()
        except OSError as error:
            wait = child.plan_restart()
            self._say(f"{child.spec.name} cannot start ({error.strerror}), again in {wait:.0f} s")
            return False
        return True

    def _roll_on(self) -> None:
        """A moment of a rolling restart. Raises Interrupted."""
        self._pause(0.05)
        if self._stop_signals:
            raise Interrupted
        self._restart()
        for child in list(self._beside):
            child.ended()
            if child.leave_by is None:
                continue
            if child.pid is None:
                self._beside.remove(child)
            elif time.monotonic() >= child.leave_by:
                self._say(f"the old {child.spec.name} does not end, killing it")
                child.signal(signal.SIGKILL)

    # Stop

    def _stop(self) -> None:
        """Agents hand in their work while the rest still serves them; the writer ends last."""
        self._say("stopping")
        agents = self._named("agent-")
        fronts = self._named("front-")
        for child in fronts:  # they answer whoever waits: agents that wait for a lease among others
            child.signal(signal.SIGUSR1)
        for child in agents:
            child.signal(signal.SIGTERM)
        self._end(agents, DRAIN_S)
        for group in (self._named("pump"), fronts, self._named("writer")):
            for child in group:
                child.signal(signal.SIGTERM)
            self._end(group, END_S)
        self._say("stopped")

    def _named(self, prefix: str) -> list[Child]:
        return [child for child in (*self._children, *self._beside) if child.spec.name.startswith(prefix)]

    def _end(self, children: Iterable[Child], seconds: float) -> None:
        """Wait for processes that were asked to end; whatever is left after ``seconds`` is killed."""
        begin = time.monotonic()
        left = list(children)
        while left:
            forced = self._stop_signals > 1
            for child in left:
                child.ended()
            left = [child for child in left if child.pid is not None]
            if time.monotonic() - begin >= (min(seconds, FORCED_END_S) if forced else seconds):
                for child in left:
                    self._say(f"{child.spec.name} does not end, killing it")
                    child.signal(signal.SIGKILL)
                begin, seconds = time.monotonic(), END_S
            if left:
                self._pause(0.2)


def _no_writer(code: int, writer: Child) -> ComputeError:
    """Why there can be no platform: its writer has refused the database, and said why and what to do."""
    said = writer.last_line().removeprefix("writer: ")
    if code == WRITER_DAMAGED:
        return InternalError(
            f"the database cannot be used: {said}",
            hint="nothing was written to it. Restore a backup: hzc restore FILE; or see: hzc doctor --repair",
        )
    if code == WRITER_NEWER:
        return Conflict(f"the database cannot be used: {said}", hint="nothing was written to it")
    return Unavailable(f"the writer ended: {said}", hint=f"read {writer.log}")


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone, the disk under a log full
        print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)
