"""Compiled modules for workers: from the cache if they are there, else compiled by a process of their own."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.sandbox.cache import ArtefactCache, private_dir
from hanzo_compute.adapters.sandbox.process import cpu_ms, environment
from hanzo_compute.adapters.sandbox.settings import Profile, tag

COMPILE_S: Final = 60.0
"""Longest time to compile a module."""
INTERPRETER_S: Final = 300.0
"""… one of our own."""
BACKGROUND_S: Final = 1800.0
"""… that nobody waits for."""
OWN_SHARE: Final = 0.25
"""The share of that time that the compiler must have had a processor for, for the module to be to blame."""
ABANDONED_S: Final = 2 * BACKGROUND_S
"""Age at which a compiler's folder must be what a killed process left."""
NICE: Final = 19
KEPT: Final = 32
"""Sealed copies that are kept open."""
REFUSED: Final = 3
MODULE: Final = "module"
SNAPSHOT: Final = "snapshot"
"""What is compiled: the module itself, or a snapshot of the interpreter that it is."""
_LAST_WORDS: Final = 2000


class CannotCompile(Exception):
    """The module cannot run here; the message says why. Trying again does not help."""


class CompileFailed(Exception):
    """The compiler failed, and not by the module's fault as far as can be seen."""


class Stopped(Exception):
    """The caller wanted no more."""


def artefacts_of(cache_dir: Path, profile: Profile, *, snapshot: bool = False) -> Artefacts:
    """What is compiled here for a profile."""
    return Artefacts(cache_dir, profile.value, tag(profile, snapshot=snapshot), snapshot=snapshot)


class Artefacts:
    """Compiled modules of one profile, by the SHA-256 of their source; several threads may ask.

    ``snapshot``: the modules are interpreters, and it is snapshots of them that are compiled; ``tag`` says so, too.
    """

    def __init__(self, cache_dir: Path, profile: str, tag: str, *, snapshot: bool = False) -> None:
        self.profile = profile
        self._snapshot = snapshot
        self._dir = private_dir(cache_dir)
        self._cache = ArtefactCache(cache_dir, tag)
        self._lock = threading.Lock()
        self._open: OrderedDict[str, int] = OrderedDict()
        self._wanted: Counter[str] = Counter()
        """How many callers wait for an artefact now."""

    def name(self, digest: str) -> str:
        """What the artefact of a module is called, in the cache and by workers."""
        return self._cache.path(digest).name

    def get(
        self,
        digest: str,
        source: Callable[[], bytes],
        *,
        timeout_s: float = COMPILE_S,
        stopped: Callable[[float], bool] | None = None,
        compiling: Callable[[], None] | None = None,
    ) -> int:
        """A descriptor (of the caller's) of the compiled module, sealed.

        ``stopped(s)`` waits that long and says whether the caller has enough; ``compiling`` hears that it takes time.

        Raises:
            CannotCompile, CompileFailed: there is none, and why.
            Stopped: by ``stopped``.
        """
        found = self._kept(digest)
        if found is not None:
            return found
        stopped = stopped or _sleep
        fd = self._cache.sealed(digest)
        if fd is None:
            if compiling is not None:
                compiling()
            # Of several agents one compiles, and the others wait for it.
            with self._wanting(digest), self._cache.lock(digest):
                fd = self._cache.sealed(digest)
                if fd is None:
                    why = self._cache.bad(digest)
                    if why is not None:
                        raise CannotCompile(why)
                    self._compile(digest, source(), timeout_s, stopped)
                    fd = self._cache.sealed(digest)
        if fd is None:
            raise CompileFailed(f"the compiled module {digest} could not be read back")
        return self._keep(digest, fd)

    def prepare(self, digest: str, source: Callable[[], bytes], stopped: Callable[[float], bool]) -> bool:
        """Compile a module into the cache, at the lowest priority, for whoever wants it later; whether that was done.

        Who wants it meanwhile does not wait for that: it is begun again, as it is for them. Raises what :meth:`get`
        raises.
        """
        if self._cache.path(digest).exists():
            return False

        def enough(seconds: float) -> bool:
            return stopped(seconds) or self._wanted[digest] > 0

        with self._cache.lock(digest):
            if enough(0) or self._cache.path(digest).exists() or self._cache.bad(digest) is not None:
                return False
            self._compile(digest, source(), BACKGROUND_S, enough, nice=NICE)
        return True

    def close(self) -> None:
        """Close what is kept open."""
        with self._lock:
            for fd in self._open.values():
                os.close(fd)
            self._open.clear()

    @contextmanager
    def _wanting(self, digest: str) -> Iterator[None]:
        with self._lock:
            self._wanted[digest] += 1
        try:
            yield
        finally:
            with self._lock:
                self._wanted[digest] -= 1

    def _kept(self, digest: str) -> int | None:
        with self._lock:
            fd = self._open.get(digest)
            if fd is None:
                return None
            self._open.move_to_end(digest)
            self._cache.touch(digest)
            return os.dup(fd)

    def _keep(self, digest: str, fd: int) -> int:
        with self._lock:
            if digest in self._open:
                os.close(fd)
            else:
                self._open[digest] = fd
                if len(self._open) > KEPT:
                    os.close(self._open.popitem(last=False)[1])
            return os.dup(self._open[digest])

    def _compile(
        self, digest: str, wasm: bytes, timeout_s: float, stopped: Callable[[float], bool], nice: int = 0
    ) -> None:
        self._sweep()
        with tempfile.TemporaryDirectory(prefix="compile-", dir=self._dir) as name:
            source, target, errors = Path(name) / "module.wasm", Path(name) / "artefact", Path(name) / "stderr"
            source.write_bytes(wasm)
            with errors.open("wb") as stderr:
                code, said = self._run((source, target), stderr.fileno(), timeout_s, stopped, nice)
            if code == 0:
                self._cache.store(digest, target.read_bytes())
                return
            words = errors.read_bytes()[-_LAST_WORDS:].decode(errors="backslashreplace").strip()
        if code == REFUSED:
            why = said
        elif code is None:
            why = f"compiling it took longer than {timeout_s:g} s"
        elif "memory allocation of" in words or "Cannot allocate memory" in words or "MemoryError" in words:
            why = "compiling it took more memory than the 3 GiB that it may use"
        else:
            last = words.splitlines()[-1] if words else "no reason given"
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
            raise CompileFailed(f"the compiler ended with {how}: {last}")
        self._cache.remember_bad(digest, why)
        raise CannotCompile(why)

    def _sweep(self) -> None:
        """Remove what processes left that were killed while they compiled: 100 MB each time, for an interpreter."""
        for left in self._dir.glob("compile-*"):
            with suppress(OSError):
                if time.time() - left.lstat().st_mtime > ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)

    def _run(
        self, files: tuple[Path, Path], stderr: int, timeout_s: float, stopped: Callable[[float], bool], nice: int
    ) -> tuple[int | None, str]:
        """The compiler's exit code, None if it took too long, and what it said. ``files``: source and target."""
        command = [sys.executable, "-P", "-m", "hanzo_compute.adapters.sandbox.compile", str(os.getpid())]
        what = SNAPSHOT if self._snapshot else MODULE
        process = subprocess.Popen(
            [*command, self.profile, what, *map(str, files), str(nice)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(),
            start_new_session=True,
        )
        until = time.monotonic() + timeout_s
        try:
            while process.poll() is None:
                if time.monotonic() > until:
                    if (had_ms := cpu_ms(process.pid)) is not None and had_ms < OWN_SHARE * timeout_s * 1000:
                        raise CompileFailed(f"the machine is busy: of {timeout_s:g} s the compiler had {had_ms} ms")
                    return None, ""
                if stopped(0.02):
                    raise Stopped
            assert process.stdout is not None
            return process.returncode, process.stdout.read(4096).decode(errors="backslashreplace")
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _sleep(seconds: float) -> bool:
    select.select([], [], [], seconds)
    return False
