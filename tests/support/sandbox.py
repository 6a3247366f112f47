"""A laboratory for the sandbox: modules are compiled as the product does it, and run in its worker processes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hanzo_compute.adapters.sandbox import settings
from hanzo_compute.adapters.sandbox.artefacts import COMPILE_S, Artefacts
from hanzo_compute.adapters.sandbox.call import Bounds, Folder, Report
from hanzo_compute.adapters.sandbox.frames import Invocation
from hanzo_compute.adapters.sandbox.hostcalls import Service
from hanzo_compute.adapters.sandbox.process import Answered, Template, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile
from tests.support.wasm import wat

CALL_S = 300.0
"""What a call may take that is no test of its time: a machine may stand still for a minute."""
PATIENCE_S = 40.0
"""How long after a call's time its worker may still answer here. The product kills it at once, which is not the same:
a worker that was to end a guest may have got no processor for a while."""
PROFILES = ("fast", "metered")


class Lab:
    """One worker, replaced when it has died, and the artefacts of both profiles."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.service: Service | None = None
        self.output: Callable[[int, bytes], None] | None = None
        self._artefacts = {
            name: Artefacts(cache, name, settings.tag(Profile(name)))  # as agents do
            for name in PROFILES
        }
        self._worker: WorkerProcess | None = None
        self._templates: dict[Any, Template] = {}

    def artefacts(self, profile: str = "fast") -> Artefacts:
        """What is compiled, of a profile."""
        return self._artefacts[profile]

    def worker(self) -> WorkerProcess:
        """The worker, which is alive."""
        if self._worker is not None and self._worker.dead:
            self._worker.kill()
            self._worker = None
        if self._worker is None:
            self._worker = WorkerProcess(self.service, self._heard)
        self._worker.service = self.service
        return self._worker

    def _heard(self, stream: int, data: bytes) -> None:
        if self.output is not None:
            self.output(stream, data)

    def opens(self, module: bytes, profile: str) -> Callable[[], int]:
        """What opens the artefact of a module."""
        digest = hashlib.sha256(module).hexdigest()
        return lambda: self._artefacts[profile].get(digest, lambda: module, timeout_s=10 * COMPILE_S)

    def template(
        self,
        module: bytes,
        *,
        profile: str = "fast",
        entry: str = "command",
        bounds: Bounds | None = None,
        granted: Iterable[str] = (),
        folders: Iterable[Folder] = (),
        live: bool = False,
        files: tuple[str, str] | None = None,
        **call: Any,
    ) -> Template:
        """The template of a call; the same one for the same arguments."""
        if profile == "metered" and call.pop("deterministic", True):
            call |= {"deterministic": True, "seed": hashlib.sha256(b"seed").hexdigest()}
        made = Template(
            artefact=self._artefacts[profile].name(hashlib.sha256(module).hexdigest()),
            profile=profile,
            call={"entry": entry, "argv": ["module"], **call},
            bounds=bounds or Bounds(memory_mib=64),
            granted=frozenset(granted),
            folders=tuple(folders),
            live=live,
            files=files,
            report=True,
        )
        return self._templates.setdefault(repr(made), made)

    def ask(
        self, module: bytes | str, data: bytes = b"", *, timeout_s: float | None = CALL_S, **options: Any
    ) -> Answered:
        """Run a module (or WAT) in the worker. Raises what :class:`WorkerProcess` raises."""
        binary = wat(module) if isinstance(module, str) else module
        template = self.template(binary, **options)
        worker = self.worker()
        number = worker.prepare(template, self.opens(binary, template.profile))
        if timeout_s is None:
            answered = worker.call(number, data, None)
        else:
            worker.send([Invocation(0, number, round(timeout_s * 1000), data)])
            answered = worker.wait(time.monotonic() + timeout_s + PATIENCE_S)
        assert answered is not None, "nothing wakes it"
        return answered

    def run(self, module: bytes | str, data: bytes = b"", **options: Any) -> Report:
        """The same; the worker has survived it, and had no error of its own."""
        before = self.worker().pid
        answered = self.ask(module, data, **options)
        assert answered.report is not None, answered.error
        assert self.worker().pid == before
        return answered.report

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.kill()
        for each in self._artefacts.values():
            each.close()
