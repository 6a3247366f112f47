"""Programs of a pool: compiled, their files laid out where their guests see them, and how workers are told of them."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import itertools
import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.sandbox import call as calls
from hanzo_compute.adapters.sandbox import guest, interpreters, layout
from hanzo_compute.adapters.sandbox.artefacts import COMPILE_S, INTERPRETER_S, Artefacts, artefacts_of
from hanzo_compute.adapters.sandbox.cache import private_dir
from hanzo_compute.adapters.sandbox.call import Bounds, Folder
from hanzo_compute.adapters.sandbox.image import Start
from hanzo_compute.adapters.sandbox.process import Template
from hanzo_compute.adapters.sandbox.settings import SANDBOX_VERSION, Profile, version
from hanzo_compute.ports.sandboxes import GuestProgram

KEPT: Final = 512
FILES_KEPT: Final = 1 << 30
"""Bytes of the files of all programs that are kept."""


@dataclass(eq=False)
class Program:
    """A program as workers know it. Its files last as long as it does."""

    template: Template
    compiled: Mapping[str, Artefacts]
    """What workers need for it, by names, and where that is."""
    digest: str
    source: Callable[[], bytes]
    runtime: str
    files_size: int
    """Bytes of its files."""
    pace_s: float = 1.0
    """What its calls take on average."""


class Programs:
    """What a pool has prepared: the programs that were called last, by their keys. Belongs to one event loop."""

    def __init__(self, state_dir: Path, cache_dir: Path) -> None:
        self._root, lock = _own_folder(private_dir(private_dir(state_dir) / "functions"))
        self._release = weakref.finalize(self, os.close, lock)
        self._numbers = itertools.count()
        self._cache_dir = private_dir(cache_dir)
        self._artefacts: dict[tuple[Profile, bool], Artefacts] = {}
        self._kept: OrderedDict[str, Program] = OrderedDict()
        self._files_size = 0
        self._preparing: dict[str, asyncio.Task[Program]] = {}

    async def get(self, wanted: GuestProgram) -> Program:
        """A program, prepared in a thread if it has to be.

        Raises:
            CannotCompile, InvalidPackage: it cannot run.
            CompileFailed, OSError: it could not be prepared now.
        """
        found = self._kept.get(wanted.key)
        if found is not None:
            self._kept.move_to_end(wanted.key)
            return found
        task = self._preparing.get(wanted.key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._keep(wanted))
            self._preparing[wanted.key] = task
            task.add_done_callback(lambda _: self._preparing.pop(wanted.key, None))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Remove all files; repeatable."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._release()
        for artefacts in self._artefacts.values():
            artefacts.close()

    async def _keep(self, wanted: GuestProgram) -> Program:
        made = self._kept[wanted.key] = await asyncio.to_thread(self._prepare, wanted)
        self._files_size += made.files_size
        while len(self._kept) > KEPT or (self._files_size > FILES_KEPT and len(self._kept) > 1):
            self._files_size -= self._kept.popitem(last=False)[1].files_size
        return made

    def _prepare(self, program: GuestProgram) -> Program:
        """Compile a program if that has to be, and lay out its files; in a thread."""
        deterministic = program.profile == "deterministic"
        profile = Profile.METERED if deterministic or program.fuel is not None else Profile.FAST
        runtime = [version(), SANDBOX_VERSION]
        digest, argv = program.digest, ["module", *program.args]
        source, snapshot, within_s = program.module, False, COMPILE_S
        found = None
        if program.language is not None:
            found = interpreters.ensure(program.language, self._cache_dir)
            digest, argv = found.digest, [*found.running(program.script), *program.args]
            source, within_s = found.path.read_bytes, INTERPRETER_S
            runtime.append(found.version)
            snapshot = found.resumes(profile, program.env, program.memory_mib)
        files = dict(program.files())
        if program.language is not None:
            files.setdefault(*guest.module(program.language))
        artefacts, start = self._of(profile, snapshot=snapshot), None
        compiled = {artefacts.name(digest): artefacts}
        if snapshot:  # who calls it must not know its seed of hashes
            assert found is not None
            assert found.started is not None
            started = self._of(profile)
            start = Start(started.name(digest), interpreters.to_snapshot(found.argv), found.started)
            compiled[start.artefact] = started
        for each in compiled.values():
            os.close(each.get(digest, source, timeout_s=within_s))
        made: dict[str, Any] = {"entry": program.entry, "argv": argv, "env": dict(program.env)}
        if deterministic:
            runtime.append("deterministic")
            seed = calls.seed(digest, argv, dict(program.env), _digest(files))  # and the input: see Worker._run
            made |= {"deterministic": True, "seed": seed.hex()}
        folder = self._laid_out(files) if files else None
        template = Template(
            artefact=artefacts.name(digest),
            profile=profile.value,
            call=made,
            bounds=Bounds(memory_mib=program.memory_mib, fuel=program.fuel, output=program.output_max),
            granted=program.granted,
            folders=() if folder is None else (Folder(str(folder), "/in"),),
            start=start,
        )
        size = sum(map(len, files.values()))
        ready = Program(template, compiled, digest, source, " ".join(runtime), size)
        if folder is not None:
            weakref.finalize(ready, shutil.rmtree, folder, ignore_errors=True)
        return ready

    def _of(self, profile: Profile, *, snapshot: bool = False) -> Artefacts:
        artefacts = self._artefacts.get((profile, snapshot))
        if artefacts is None:
            artefacts = artefacts_of(self._cache_dir, profile, snapshot=snapshot)
            artefacts = self._artefacts.setdefault((profile, snapshot), artefacts)
        return artefacts

    def _laid_out(self, files: Mapping[str, bytes]) -> Path:
        folder = self._root / str(next(self._numbers))
        folder.mkdir(mode=0o700)
        try:
            layout.write(folder, files.items())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder


def _digest(files: Mapping[str, bytes]) -> str:
    """SHA-256, hex, of files and their paths."""
    hashed = hashlib.sha256()
    for name, data in sorted(files.items()):
        hashed.update(f"{len(name)} {len(data)} {name}".encode() + data)
    return hashed.hexdigest()


def _own_folder(parent: Path) -> tuple[Path, int]:
    """A new folder, and the lock that says whose it is; folders of processes that were killed are removed."""
    gate = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)  # so that no folder is seen before it is locked
        for left in parent.iterdir():
            _remove_unless_locked(left)
        made = Path(tempfile.mkdtemp(dir=parent))
        return made, _locked(made)
    finally:
        os.close(gate)


def _remove_unless_locked(folder: Path) -> None:
    try:
        lock = _locked(folder)
    except OSError:
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _locked(folder: Path) -> int:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
