"""The sandbox in this process: an engine, a thread for its guests, and another that looks at the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hanzo_compute.adapters.sandbox.call import Bounds, Call, Report
from hanzo_compute.adapters.sandbox.settings import Profile

if TYPE_CHECKING:
    from hanzo_compute.adapters.sandbox.running import Loaded
    from hanzo_compute.adapters.sandbox.sandbox import Sandbox

STACK = 8 << 20


class InProcess:
    """One sandbox; what it runs runs on a thread with the stack that it needs."""

    def __init__(self, profile: Profile = Profile.FAST) -> None:
        from hanzo_compute.adapters.sandbox.engine import Engine

        self.engine = Engine(profile)
        self.sandbox: Sandbox | None = None
        self._loaded: dict[bytes, Loaded] = {}
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._work: list[Callable[[], None]] = []
        self._given = threading.Semaphore(0)
        before = threading.stack_size(STACK)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        threading.stack_size(before)
        self._ticker.start()

    def __enter__(self) -> InProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._given.release()
        self._thread.join(60)
        self._ticker.join(60)

    def _tick(self) -> None:
        while not self._stop.wait(0.005):
            self.engine.check()

    def _serve(self) -> None:
        while True:
            self._given.acquire()
            if not self._work:
                return
            self._work.pop(0)()

    def load(self, module: bytes) -> Loaded:
        """A module in this engine."""
        import wasmtime

        from hanzo_compute.adapters.sandbox.running import Loaded

        if module not in self._loaded:
            self._loaded[module] = Loaded.of(wasmtime.Module(self.engine.engine, module))
        return self._loaded[module]

    def call(self, module: bytes, call: Call) -> Report:
        """One call. Raises what :meth:`Sandbox.run` raises."""
        from hanzo_compute.adapters.sandbox.sandbox import Sandbox

        done = threading.Event()
        found: list[Report | BaseException] = []

        def work() -> None:
            try:
                self.sandbox = self.sandbox or Sandbox(self.engine)
                found.append(self.sandbox.run(self.load(module), call))
            except BaseException as error:
                found.append(error)
            done.set()

        self._work.append(work)
        self._given.release()
        assert done.wait(280)
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def run(self, module: bytes, data: bytes = b"", *, timeout_s: float = 20, **fields: Any) -> Report:
        """One call with these fields of :class:`Call`, which ends in time."""
        fields.setdefault("bounds", Bounds(memory_mib=64))
        return self.call(module, Call(stdin=data, deadline=time.monotonic() + timeout_s, **fields))

    def stop(self) -> None:
        """End what runs now."""
        if self.sandbox is not None:
            self.sandbox.stop()
