"""From a lease to what a worker is asked: which module, how it is called, within which bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.runner.wasm.attempt import AttemptDir
from hanzo_compute.adapters.sandbox import call, interpreters
from hanzo_compute.adapters.sandbox.call import Bounds, Folder
from hanzo_compute.adapters.sandbox.process import Template
from hanzo_compute.adapters.sandbox.settings import SANDBOX_VERSION, Profile, version
from hanzo_compute.model import bounds, wasm
from hanzo_compute.model.capabilities import of_source
from hanzo_compute.model.package import environment
from hanzo_compute.model.wasm import InvalidModule
from hanzo_compute.ports import Lease

DETERMINISTIC: Final = "deterministic"


@dataclass(frozen=True)
class Program:
    """What an attempt runs. ``ours``: the module is an interpreter of the platform's; ``snapshot``: started already."""

    digest: str
    source: Path
    profile: Profile
    entry: str
    argv: list[str]
    env: dict[str, str]
    deterministic: bool
    memory_mib: int
    fuel: int | None
    ours: bool
    versions: str
    package: str | None = None
    """Blob id of the package that it is in."""
    snapshot: bool = False
    granted: frozenset[str] = frozenset()
    """Capabilities of the function that it is."""

    @classmethod
    def of(cls, lease: Lease, files: AttemptDir, cache_dir: Path, progress: Callable[[str], None]) -> Program:
        """The program of an attempt, with an interpreter that is fetched if it has to be.

        Raises:
            InvalidModule: the module cannot run.
            NotSupported, Unavailable: see :func:`~hanzo_compute.adapters.sandbox.interpreters.ensure`.
        """
        spec = lease.spec
        source = spec["source"]
        language, package = source.get("language"), source.get("package")
        env: dict[str, str] = spec.get("env", {})
        deterministic = spec.get("profile") == DETERMINISTIC
        resources: dict[str, Any] = spec.get("resources", {})
        fuel = resources.get("fuel")
        profile = Profile.METERED if deterministic or fuel is not None else Profile.FAST
        said = [version(), SANDBOX_VERSION]
        memory_mib = resources.get("memory_mib", bounds.MEMORY_MIB_DEFAULT)
        entry, snapshot = "command", False
        if language is not None:
            interpreter = interpreters.ensure(language, cache_dir, progress)
            path, digest, argv = interpreter.path, interpreter.digest, list(interpreter.argv)
            if package is not None:
                argv, env = interpreter.running(source["entry"]), environment(language, env)
            said.append(interpreter.version)
            # A call of a function that became a job: who sent its input must not know its seed of hashes.
            snapshot = "function" not in source and interpreter.resumes(profile, env, memory_mib)
        else:
            path = files.module
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            entry = entry_of(data, profile)
            argv = ["module"]
        if deterministic:
            said.append(DETERMINISTIC)
        return cls(
            digest=digest,
            source=path,
            profile=profile,
            entry=entry,
            argv=[*argv, *spec.get("args", [])],
            env=dict(sorted(env.items())),  # the spec's digest does not tell their order
            deterministic=deterministic,
            memory_mib=memory_mib,
            fuel=fuel,
            ours=language is not None,
            versions=" ".join(said),
            package=package,
            snapshot=snapshot,
            granted=frozenset(of_source(source).granted),
        )

    def template(self, artefact: str, files: AttemptDir) -> Template:
        """What the worker is asked."""
        made: dict[str, Any] = {
            "entry": self.entry,
            "argv": self.argv,
            "env": self.env,
            "stdin_path": str(files.stdin),
        }
        if self.deterministic:
            own = sorted(files.inputs.iterdir())
            code = (self.package or "").encode() or b"".join(path.read_bytes() for path in own)
            read = hashlib.sha256(code + files.stdin.read_bytes()).hexdigest()
            made |= {"deterministic": True, "seed": call.seed(self.digest, self.argv, self.env, read).hex()}
        return Template(
            artefact=artefact,
            profile=self.profile.value,
            call=made,
            bounds=Bounds(memory_mib=self.memory_mib, fuel=self.fuel, output=bounds.OUTPUT_MAX),
            folders=(Folder(str(files.inputs), "/in"), Folder(str(files.scratch), "/tmp", writable=True)),  # noqa: S108
            files=(str(files.stdout), str(files.stderr)),
            granted=self.granted,
            report=True,
        )


def entry_of(data: bytes, profile: Profile) -> str:
    """How a job's module is entered: ``command`` or ``component``. Raises InvalidModule."""
    facts = wasm.inspect(data)
    if facts.component:
        if profile is Profile.METERED:
            raise InvalidModule("it is a component: those run in the profile fast, without a fuel limit")
        return "component"
    if facts.exports.get("_start") != "func":
        raise InvalidModule("it exports no function _start: build it as a WASI preview 1 command")
    return "command"
