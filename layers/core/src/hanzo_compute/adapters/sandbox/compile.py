"""The compiler: a process of its own for each module, since compiling is where a small module can cost much.

``python -m hanzo_compute.adapters.sandbox.compile PARENT PROFILE WHAT SOURCE TARGET NICE`` checks and compiles what is
in the file SOURCE into the file TARGET, at a priority lower by NICE. WHAT is ``module``, or ``snapshot``: then it is
the module of an interpreter, of which a snapshot is taken first. Exit 0: done. 3: no such module can run here; the
reason is on stdout.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.sandbox import harden, hostcalls, shim
from hanzo_compute.adapters.sandbox.artefacts import SNAPSHOT
from hanzo_compute.adapters.sandbox.engine import Engine, InvalidProgram, said
from hanzo_compute.adapters.sandbox.interpreters import PINS
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.model import wasm
from hanzo_compute.model.wasm import InvalidModule, ModuleFacts

REFUSED: Final = 3
REASON_MAX: Final = 2000
"""Bytes of a reason."""
COMPILE_MEMORY: Final = 3 << 30
"""Memory that a compilation may fill, bytes."""

ENTRIES: Final = {"_start": "command", "handle": "reactor"}


def check(facts: ModuleFacts) -> None:
    """Refuse what cannot run here before anything is compiled.

    Raises:
        InvalidModule: it has no entry, or imports what nobody offers.
    """
    if facts.component:
        return
    if not any(facts.exports.get(name) == "func" for name in ENTRIES):
        raise InvalidModule(
            "it exports no function _start: build it as a WASI preview 1 command (or export alloc and handle)"
        )
    for each in facts.imports:
        known = each.module == shim.WASI or (each.module == hostcalls.MODULE and each.name in hostcalls.FUNCTIONS)
        if not known or each.kind != "func":
            raise InvalidModule(
                f"it imports {each.kind} {each.module}.{each.name}: WASI preview 1 and the functions of hzc are all "
                "there is"
            )


def compile_module(profile: Profile, data: bytes) -> bytearray:
    """Check, compile and try to link a module. Raises InvalidModule, InvalidProgram."""
    facts = wasm.inspect(data)
    check(facts)
    return compile_with(Engine(profile, pooled=False), facts, data)


def compile_with(engine: Engine, facts: ModuleFacts, data: bytes) -> bytearray:
    """Compile and try to link what was checked. Raises InvalidProgram."""
    import wasmtime

    from hanzo_compute.adapters.sandbox.sandbox import Sandbox

    artefact = engine.compile(data, component=facts.component)
    if not facts.component:
        module = wasmtime.Module.deserialize(engine.engine, artefact)
        _check_entry(module)
        try:
            Sandbox(engine).link(module)
        except wasmtime.WasmtimeError as error:
            raise InvalidProgram(f"it cannot be linked: {said(error)}") from None
    return artefact


def _check_entry(module: object) -> None:
    import wasmtime

    assert isinstance(module, wasmtime.Module)
    kinds = {export.name: export.type for export in module.exports}
    wanted = {
        "_start": ([], []),
        "_initialize": ([], []),
        "alloc": (["i32"], ["i32"]),
        "handle": (["i32"] * 2, ["i64"]),
    }
    for name, (params, results) in wanted.items():
        kind = kinds.get(name)
        if kind is None or (name == "alloc" and "handle" not in kinds):
            continue
        found = kind if isinstance(kind, wasmtime.FuncType) else None
        if found is None or [str(p) for p in found.params] != params or [str(r) for r in found.results] != results:
            raise InvalidProgram(
                f"its {name} is not a function ({', '.join(params)}) -> ({', '.join(results)}), as it must be"
            )
    if "handle" in kinds and "_start" not in kinds:
        if not isinstance(kinds.get("alloc"), wasmtime.FuncType):
            raise InvalidProgram("it exports handle but no alloc: a reactor needs both")
        if not isinstance(kinds.get("memory"), wasmtime.MemoryType):
            raise InvalidProgram("it exports handle but no memory: a reactor needs both")


def _snapshot(data: bytes, folder: Path) -> bytes:
    from hanzo_compute.adapters.sandbox import snapshot

    digest = hashlib.sha256(data).hexdigest()
    pin = next((pin for pin in PINS.values() if pin.sha256 == digest and pin.started is not None), None)
    if pin is None:
        raise InvalidProgram("it is no interpreter of which a snapshot can be taken")
    return snapshot.take(data, pin, folder)


def main(parent: int, profile: str, what: str, source: str, target: str, nice: int) -> int:
    """Compile one module."""
    os.nice(nice)
    harden.harden(parent)
    resource.setrlimit(resource.RLIMIT_DATA, (COMPILE_MEMORY, COMPILE_MEMORY))
    harden.refuse_system_calls()
    try:
        data = Path(source).read_bytes()
        if what == SNAPSHOT:
            data = _snapshot(data, Path(target).parent)
        artefact = compile_module(Profile(profile), data)
    except (InvalidModule, InvalidProgram) as error:
        # In one write that fits into the pipe: names of a module may be long, and nobody reads before the end.
        os.write(1, str(error).encode("utf-8", "backslashreplace")[:REASON_MAX])
        return REFUSED
    Path(target).write_bytes(artefact)
    return 0


if __name__ == "__main__":
    parent_pid, chosen, wanted, module, artefact_path, niceness = sys.argv[1:]
    harden.leave(main(int(parent_pid), chosen, wanted, module, artefact_path, int(niceness)))
