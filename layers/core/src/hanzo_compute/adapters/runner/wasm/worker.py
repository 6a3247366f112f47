"""The worker process: reads a JSON object a line from its supervisor, runs guests, answers in JSON lines.

Requests: ``{"op": "load"|"run", …}`` and, while a guest runs, ``{"op": "stop"}``. Answers: ``{"phase":
"compile"}`` and ``{"phase": "run", "cpu_ms"}`` on the way, and at the end one of ``{"done": report}``,
``{"ready": true}``, ``{"invalid": why}`` or ``{"error": why}``. When the supervisor is gone, so is the
worker.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute.adapters.runner.wasm.cache import ArtefactCache
from hanzo_compute.adapters.runner.wasm.engine import Engine, Guest, InvalidModule, Report, sha256_file, tag
from hanzo_compute.adapters.runner.wasm.lines import Lines

if TYPE_CHECKING:
    import wasmtime

RUN_ADDRESS_SPACE: Final = 8 << 30
"""A guest's memory reserves 4 GiB and its guards; the rest is Python, wasmtime and loaded modules."""
COMPILE_ADDRESS_SPACE: Final = 3 << 30
OPEN_FILES: Final = 64
GUEST_STACK: Final = 8 << 20
"""Stack of the thread that runs guests, bytes: over 4 MiB, so that the guest's own limit is reached first."""
MODULES_KEPT: Final = 8

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38


def harden(parent: int) -> None:
    """Give up what a worker does not need, and tie its life to the process ``parent``."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_AS, (RUN_ADDRESS_SPACE, RUN_ADDRESS_SPACE))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A write over RLIMIT_FSIZE is then an error that the guest sees.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.umask(0o077)
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        for option, value in ((PR_SET_PDEATHSIG, signal.SIGKILL), (PR_SET_NO_NEW_PRIVS, 1)):
            if prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(1)


class Worker:
    """Serves one supervisor over two descriptors."""

    def __init__(self, lines: Lines, cache_dir: Path) -> None:
        self._lines = lines
        self._cache = ArtefactCache(cache_dir, tag())
        self._engine = Engine()
        self._modules: OrderedDict[str, wasmtime.Module] = OrderedDict()
        self._wake_read, self._wake_write = os.pipe()

    def serve(self) -> None:
        """Answer requests until the supervisor closes its end."""
        while True:
            request = self._lines.receive()
            if request is None:
                return
            if request["op"] == "stop":  # its guest had ended by itself
                continue
            try:
                answer = self._answer(request, time.monotonic())
            except InvalidModule as error:
                answer = {"invalid": str(error)}
            except Exception as error:  # the supervisor decides; the next request may fare better
                answer = {"error": f"{type(error).__name__}: {error}"}
            self._lines.send(answer)

    def _answer(self, request: dict[str, Any], received: float) -> dict[str, Any]:
        module = self._module(request["digest"], request["module"])
        if request["op"] == "load":
            return {"ready": True}
        self._lines.send({"phase": "run", "cpu_ms": round(time.process_time() * 1000)})
        started = time.monotonic()
        begin = received if request["timeout_includes_load"] else started
        report = self._run(module, request, begin + request["timeout_s"])
        report.wall_ms = round((time.monotonic() - started) * 1000)
        return {"done": asdict(report)}

    def _module(self, digest: str, source: str) -> wasmtime.Module:
        module = self._modules.get(digest)
        if module is None:
            module = self._loaded(digest) or self._compiled(digest, source)
            self._modules[digest] = module
            if len(self._modules) > MODULES_KEPT:
                self._modules.popitem(last=False)
        else:
            self._cache.touch(digest)
        self._modules.move_to_end(digest)
        return module

    def _loaded(self, digest: str) -> wasmtime.Module | None:
        with self._cache.verified(digest) as path:
            return self._engine.load(path) if path is not None else None

    def _compiled(self, digest: str, source: str) -> wasmtime.Module:
        self._lines.send({"phase": "compile"})
        wasm, found = sha256_file(source)
        if found != digest:
            raise OSError(f"{source} does not hold the module {digest}")
        with self._cache.lock(digest):
            module = self._loaded(digest)
            if module is not None:  # another worker compiled it meanwhile
                return module
            resource.setrlimit(resource.RLIMIT_AS, (COMPILE_ADDRESS_SPACE, RUN_ADDRESS_SPACE))
            try:
                artefact = self._engine.compile(wasm)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (RUN_ADDRESS_SPACE, RUN_ADDRESS_SPACE))
            self._cache.store(digest, artefact)
            module = self._loaded(digest)
        if module is None:
            raise OSError(f"the compiled module {digest} could not be loaded back")
        return module

    def _run(self, module: wasmtime.Module, request: dict[str, Any], deadline: float) -> Report:
        guest = Guest(**{name: request[name] for name in ("directory", "argv", "env", "memory_mib", "fuel")})
        results: list[Report | BaseException] = []

        def body() -> None:
            try:
                results.append(self._engine.run(module, guest))
            except BaseException as error:
                results.append(error)
            finally:
                os.write(self._wake_write, b"x")

        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        # One byte over the bound tells an output that was cut from one that just fits.
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["output_max"] + 1, unlimited[1]))
        threading.stack_size(GUEST_STACK)
        thread = threading.Thread(target=body, name="guest")
        try:
            thread.start()
            self._watch(deadline)
            thread.join()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]

    def _watch(self, deadline: float) -> None:
        """Wait until the guest has ended; interrupt it at the deadline or when told to."""
        interrupted = False
        while True:
            left = None if interrupted else max(deadline - time.monotonic(), 0)
            readable, _, _ = select.select([self._wake_read, self._lines.fileno()], [], [], left)
            if self._wake_read in readable:
                os.read(self._wake_read, 1)
                return
            if self._lines.fileno() in readable and self._lines.receive() is None:
                os._exit(1)  # the supervisor is gone, and nobody waits for this guest
            # What is left is the deadline, or the one request that may come now: stop.
            self._engine.interrupt()
            interrupted = True


def main(parent: int, cache_dir: Path) -> None:
    """Run as a worker of the process ``parent`` until it closes our standard input."""
    harden(parent)
    lines = Lines(os.dup(0), os.dup(1))
    # Nothing but answers may reach the supervisor: 0 and 1 now lead nowhere.
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    Worker(lines, cache_dir).serve()
    # Finalising wasmtime at interpreter exit has no use here, and has been seen to abort.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
