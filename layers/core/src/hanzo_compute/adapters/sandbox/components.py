"""Components of the component model that are WASI preview 2 commands (``wasi:cli/run``).

Their WASI is wasmtime's alone: it cannot be shadowed from here, so output goes to files with a bound on their size,
and a sleep ends with the process. Typed calls are not our way for bulk data: lists of bytes would be converted one by
one.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import wasmtime

from hanzo_compute.adapters.sandbox.call import Call, Report
from hanzo_compute.adapters.sandbox.engine import Engine, said
from hanzo_compute.adapters.sandbox.sandbox import TABLE_ELEMENTS

RUN: Final = "wasi:cli/run@0.2."
LIMITS: Final = {"instances": 64, "memories": 4, "tables": 64, "table_elements": TABLE_ELEMENTS}
TRAPS: Final = {
    f"wasm trap: {words}": name
    for words, name in {
        "interrupt": "interrupt",
        "call stack exhausted": "stack_overflow",
        "out of bounds memory access": "memory_out_of_bounds",
        "undefined element: out of bounds table access": "table_out_of_bounds",
        "uninitialized element": "indirect_call_to_null",
        "indirect call type mismatch": "bad_signature",
        "integer overflow": "integer_overflow",
        "integer divide by zero": "integer_division_by_zero",
        "invalid conversion to integer": "bad_conversion_to_integer",
        "wasm `unreachable` instruction executed": "unreachable",
        "": "host_error",
    }.items()
}
"""What wasmtime says of a trap, and its name."""


@dataclass(eq=False)
class Component:
    """A component in an engine."""

    component: Any


def run_component(engine: Engine, loaded: Component, call: Call) -> Report:
    """Run a command to its end."""
    from wasmtime import component as components

    with ExitStack() as opened:
        out, err = (_file(opened, name) for name in ("stdout", "stderr"))
        config = wasmtime.WasiConfig()
        config.argv = call.argv
        config.env = list(call.env.items())
        config.stdin_file = call.stdin_path or _file(opened, "stdin", call.stdin)
        config.stdout_file, config.stderr_file = out, err
        for folder in call.folders:
            config.preopen_dir(folder.host, folder.guest, fs_mutable=folder.writable)
        store = wasmtime.Store(engine.engine)
        cpu, began = time.thread_time(), time.monotonic()
        try:
            store.set_limits(memory_size=call.bounds.memory_mib << 20, **LIMITS)
            engine.begin(call.deadline, lambda: store.set_epoch_deadline(1))
            store.set_wasi(config)
            linker = components.Linker(engine.engine)
            linker.add_wasip2()
            report = _run(linker, store, loaded.component)
        finally:
            engine.end()
            store.close()
        report.cpu_ms = round((time.thread_time() - cpu) * 1000)
        report.wall_ms = round((time.monotonic() - began) * 1000)
        for index, path in enumerate((out, err)):
            with Path(path).open("rb") as file:
                data = file.read(call.bounds.output + 1)
            if len(data) > call.bounds.output:
                data = data[: call.bounds.output]
                report.limits.append("stderr" if index else "stdout")
            if call.sink is not None and data:
                call.sink(index + 1, data)
            elif index == 0:
                report.stdout = data
            else:
                report.stderr = data
        return report


def _file(opened: ExitStack, name: str, data: bytes = b"") -> str:
    """The path of a file in memory: a worker that is killed leaves nothing on the disk."""
    file = opened.enter_context(os.fdopen(os.memfd_create(name), "wb"))
    file.write(data)
    file.flush()
    return f"/proc/self/fd/{file.fileno()}"


def _run(linker: Any, store: wasmtime.Store, component: Any) -> Report:
    started = False
    try:
        instance = linker.instantiate(store, component)
        entry = _entry(store, component, instance)
        if entry is None:
            return Report("invalid", detail="it exports no wasi:cli/run: build it as a WASI preview 2 command")
        started = True
        failed = entry(store)
    except wasmtime.ExitTrap as ended:
        return Report("exit", exit_code=ended.code)
    except wasmtime.Trap as trap:
        code = trap.trap_code
        name = "host_error" if code is None else code.name.lower()
        return Report("trap", trap=name, detail=said(trap))
    except wasmtime.WasmtimeError as error:
        message = said(error)
        # Of components, the binding gives traps as errors.
        for words, name in TRAPS.items():
            if words in message:
                return Report("trap", trap=name, detail=message)
        if started:
            return Report("trap", trap="host_error", detail=message)
        return Report("oom" if "exceeds memory limits" in message else "invalid", detail=message)
    finished = failed is None or (hasattr(failed, "tag") and failed.tag == "ok")
    return Report("exit", exit_code=0 if finished else 1)


def _entry(store: wasmtime.Store, component: Any, instance: Any) -> Any:
    for name in ("0", "1", "2", "3", "4", "5", "6"):
        index = instance.get_export_index(store, RUN + name)
        if index is not None:
            inner = instance.get_export_index(store, "run", index)
            return instance.get_func(store, inner)
    return None
