"""A program run here and now, without a platform: the same workers and limits, its streams passed through."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.sandbox import artefacts, call, interpreters, layout
from hanzo_compute.adapters.sandbox.artefacts import CannotCompile, CompileFailed, artefacts_of
from hanzo_compute.adapters.sandbox.call import Bounds, Folder, Report
from hanzo_compute.adapters.sandbox.process import Overdue, Template, WorkerDied, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.errors import InvalidRequest, Unavailable
from hanzo_compute.model import wasm
from hanzo_compute.model.package import InvalidPackage, environment, unpack
from hanzo_compute.model.wasm import InvalidModule

BOUNDS: Final = Bounds(output=1 << 31, scratch=1 << 40, scratch_files=1 << 20, open_files=64)
"""What a program may use that its owner runs in folders of its own."""


@dataclass(frozen=True)
class LocalProgram:
    """What is run: a module (``language`` None) or source code; ``folders`` are those that it sees."""

    file: Path
    language: str | None
    args: Sequence[str]
    env: dict[str, str]
    folders: Sequence[tuple[str, str]]
    memory_mib: int
    timeout_s: float | None
    fuel: int | None
    deterministic: bool
    stdin: Path | None
    """None: standard input of this process."""
    package: bytes | None = None
    """A package, of which ``file`` names the file that it begins with."""


@dataclass(frozen=True)
class LocalOutcome:
    """How it ended: its exit code, or that none came and why; and what it used."""

    exit_code: int | None
    why: str
    fuel: int | None
    wall_ms: int
    timed_out: bool = False
    limits: Sequence[str] = ()


def run(
    program: LocalProgram, cache_dir: Path, output: Callable[[int, bytes], None], progress: Callable[[str], None]
) -> LocalOutcome:
    """Run a program to its end; ``output`` gets what it writes, by stream.

    Raises:
        InvalidRequest: it cannot run in the sandbox; the message says why.
        NotSupported, Unavailable: there is no interpreter, or no worker.
    """
    if program.package is None:
        return _run(program, program.file.resolve().parent, cache_dir, output, progress)
    assert program.language is not None, "a package is in a language"
    with tempfile.TemporaryDirectory(prefix="hzc-run-") as folder:
        try:
            layout.write(Path(folder), unpack(program.package, program.language, program.file.as_posix()))
        except InvalidPackage as error:
            raise InvalidRequest(f"the package cannot be unpacked: {error}") from None
        return _run(program, Path(folder), cache_dir, output, progress)


def _run(
    program: LocalProgram,
    inputs: Path,
    cache_dir: Path,
    output: Callable[[int, bytes], None],
    progress: Callable[[str], None],
) -> LocalOutcome:
    profile = Profile.METERED if program.deterministic or program.fuel is not None else Profile.FAST
    source, digest, made, snapshot = _source(program, profile, cache_dir, progress)
    compiled = artefacts_of(cache_dir, profile, snapshot=snapshot)
    worker: WorkerProcess | None = None
    try:
        fd = compiled.get(
            digest,
            source.read_bytes,
            timeout_s=artefacts.COMPILE_S if program.language is None else artefacts.INTERPRETER_S,
            compiling=lambda: progress(f"compiling {source.name}"),
        )
        with os.fdopen(fd, "rb") as kept:
            template = Template(
                artefact=compiled.name(digest),
                profile=profile.value,
                call=made,
                bounds=replace(BOUNDS, memory_mib=program.memory_mib, fuel=program.fuel),
                folders=tuple(_folders(program, inputs)),
                live=True,
                report=True,
            )
            own = sys.stdin if program.stdin is None else None  # None if it is closed: 0 is something else then
            worker = WorkerProcess(output=output, stdin=None if own is None else 0)
            number = worker.prepare(template, partial(os.dup, kept.fileno()))
            answered = worker.call(number, b"", program.timeout_s)
        assert answered is not None, "without a wake it waits for the end"
        if answered.report is None:
            raise Unavailable(f"the sandbox failed: {answered.error}", hint="report it")
        return _outcome(answered.report)
    except (CannotCompile, InvalidModule) as error:
        raise InvalidRequest(f"{program.file.name} cannot run: {error}") from None
    except Overdue:
        return LocalOutcome(None, "its time was over", None, round((program.timeout_s or 0) * 1000), timed_out=True)
    except (CompileFailed, LookupError, WorkerDied) as error:
        words = error.words.strip().splitlines()[-1:] if isinstance(error, WorkerDied) else []
        raise Unavailable(f"the sandbox failed: {' '.join([str(error), *words])}", hint="hzc doctor") from None
    finally:
        if worker is not None:
            worker.kill()
        compiled.close()


def _source(
    program: LocalProgram, profile: Profile, cache_dir: Path, progress: Callable[[str], None]
) -> tuple[Path, str, dict[str, Any], bool]:
    stdin = "/proc/self/fd/0" if program.stdin is None else str(program.stdin)  # the worker's, which has ours
    found = None
    if program.language is None:
        data = program.file.read_bytes()
        facts = wasm.inspect(data)
        entry, argv, source = "component" if facts.component else "command", [program.file.name], program.file
        digest = hashlib.sha256(data).hexdigest()
        if not facts.component and facts.exports.get("_start") != "func":
            raise InvalidModule("it exports no function _start: build it as a WASI preview 1 command")
    else:
        found = interpreters.ensure(program.language, cache_dir, progress)
        entry, source, digest = "command", found.path, found.digest
        argv = found.running(program.file.name if program.package is None else program.file.as_posix())
    argv += program.args
    env = program.env
    if program.package is not None and program.language is not None:
        env = environment(program.language, env)
    snapshot = found is not None and found.resumes(profile, env, program.memory_mib, 1 + len(program.folders))
    made: dict[str, Any] = {"entry": entry, "argv": argv, "env": env, "stdin_path": stdin}
    if program.deterministic:
        # Standard input may be a terminal: it is no part of the seed here.
        made |= {"deterministic": True, "seed": call.seed(digest, argv, env, "").hex()}
    return source, digest, made, snapshot


def _folders(program: LocalProgram, inputs: Path) -> list[Folder]:
    found = [Folder(host, guest, writable=True) for host, guest in program.folders]
    if program.language is not None:
        found.insert(0, Folder(str(inputs), "/in"))
    return found


def _outcome(report: Report) -> LocalOutcome:
    if report.kind == "exit":
        return LocalOutcome(report.exit_code, "", report.fuel, report.wall_ms, limits=report.limits)
    timed_out = report.trap == "interrupt"
    why = "its time was over" if timed_out else report.detail or report.kind
    return LocalOutcome(None, why, report.fuel, report.wall_ms, timed_out, report.limits)
