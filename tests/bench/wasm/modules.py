"""What the benchmarks of the sandbox share: guests, workers that have them, and processes that are compared."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.sandbox import sandbox
from hanzo_compute.adapters.sandbox.artefacts import Artefacts
from hanzo_compute.adapters.sandbox.engine import Engine
from hanzo_compute.adapters.sandbox.process import Template, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile, tag
from hanzo_compute.adapters.sandbox.worker import GUEST_STACK

ROOT: Final = Path(__file__).resolve().parents[3]
HERE: Final = Path(__file__).parent


def loaded(engine: Engine, wasm: bytes) -> sandbox.Loaded:
    """A module in an engine of this process."""
    import wasmtime

    return sandbox.Loaded.of(wasmtime.Module(engine.engine, wasm))


def guest(name: str) -> Path:
    """A guest of examples/c, built if it is not."""
    target = f"build/guests/{name}.wasm"
    subprocess.run(["make", "-s", "-f", "scripts/guests.mk", target], cwd=ROOT, check=True, stdout=sys.stderr)
    return ROOT / target


def wat(text: str) -> bytes:
    """A module, from its text."""
    import wasmtime

    return bytes(wasmtime.wat2wasm(text))


class Work:
    """Workers, with an artefact cache of their own."""

    def __init__(self, cache: Path, profile: Profile = Profile.FAST) -> None:
        self.profile = profile
        self.artefacts = Artefacts(cache, profile.value, tag(profile))
        self._open = ExitStack()

    def ready(self, wasm: bytes, call: dict[str, Any], **template: Any) -> tuple[WorkerProcess, int]:
        """A new worker that has a module, and the number of its template."""
        worker = WorkerProcess(service=template.pop("service", None))
        self._open.callback(worker.kill)
        return worker, self.prepare(worker, wasm, call, **template)

    def prepare(self, worker: WorkerProcess, wasm: bytes, call: dict[str, Any], **template: Any) -> int:
        """Give a worker a module."""
        digest = hashlib.sha256(wasm).hexdigest()
        made = Template(self.artefacts.name(digest), self.profile.value, call, **template)
        return worker.prepare(made, lambda: self.artefacts.get(digest, lambda: wasm, timeout_s=300))

    def close(self) -> None:
        """End all workers."""
        self._open.close()
        self.artefacts.close()


@contextmanager
def working(cache: Path, profile: Profile = Profile.FAST) -> Iterator[Work]:
    """Workers that end afterwards."""
    work = Work(cache, profile)
    try:
        yield work
    finally:
        work.close()


class Peer:
    """A process that is told a line and answers with one of JSON."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, line: object) -> Any:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def peers(commands: dict[str, list[str]]) -> Iterator[dict[str, Peer]]:
    """Processes by their names, which end afterwards."""
    with ExitStack() as stack:
        found = {}
        for name, command in commands.items():
            found[name] = Peer(command)
            stack.callback(found[name].close)
        yield found


def on_guest_stack(work: Callable[[], Any]) -> Any:
    """The result of something that runs guests in this process: it needs a stack as a worker's thread has."""
    found: list[Any] = []
    before = threading.stack_size(GUEST_STACK)
    try:
        thread = threading.Thread(target=lambda: found.append(work()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert found, "it raised"
    return found[0]
