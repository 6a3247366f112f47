"""A module in an engine, and the state of the call that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import wasmtime

from hanzo_compute.adapters.sandbox import hostcalls
from hanzo_compute.adapters.sandbox.binding import Extern, Trapped
from hanzo_compute.adapters.sandbox.call import Call, Stream
from hanzo_compute.adapters.sandbox.shim import WASI
from hanzo_compute.adapters.sandbox.steady import Steady

PAGE: Final = 65536

ENTRIES: Final[dict[str, tuple[list[str], list[str]]]] = {
    "_start": ([], []),
    "_initialize": ([], []),
    "alloc": (["i32"], ["i32"]),
    "handle": (["i32", "i32"], ["i64"]),
}
"""Functions by which a module is entered: parameters and results. They are called without wasmtime's checks."""


@dataclass(eq=False)
class Loaded:
    """A module in an engine."""

    module: wasmtime.Module
    imports: list[tuple[str, str]]
    entries: frozenset[str]
    """Which of ENTRIES it exports with their types."""
    memory: bool
    """Whether it exports a memory as ``memory``."""
    memory_least: int = 0
    """Bytes that its memory has at first."""
    memory_most: int | None = None
    """Bytes that its memory says it has at most."""
    pre: dict[object, wasmtime.InstancePre] = field(default_factory=dict)
    """Linked for a sandbox, if it needs no WASI."""
    wasi: bool = field(init=False)
    """Whether it needs WASI."""
    asks: bool = field(init=False)
    """Whether it can call host functions: those of hzc, or WASI's control descriptor."""
    names: list[str] = field(init=False)
    """What its imports are called at the gate."""
    lacking: dict[str, str] = field(init=False)
    """Why it cannot be entered so, for each way."""

    def __post_init__(self) -> None:
        modules = {module for module, _ in self.imports}
        self.names = [name if module == WASI else f"{module}.{name}" for module, name in self.imports]
        self.wasi = WASI in modules
        self.asks = self.wasi or hostcalls.MODULE in modules
        command, reactor = "_start" in self.entries, self.memory and {"alloc", "handle"} <= self.entries
        self.lacking = {
            "command": "" if command else "it exports no function _start () -> ()",
            "reactor": "" if reactor else "it does not export memory, alloc (i32) -> i32 and handle (i32, i32) -> i64",
        }

    @classmethod
    def of(cls, module: wasmtime.Module) -> Loaded:
        """Look at a module once."""
        imports = [(each.module, each.name or "") for each in module.imports]
        kinds = {each.name: each.type for each in module.exports}
        entries = frozenset(name for name, wanted in ENTRIES.items() if typed(kinds.get(name)) == wanted)
        memory = kinds.get("memory")
        if not isinstance(memory, wasmtime.MemoryType):
            return cls(module, imports, entries, memory=False)
        least, most = memory.limits.min * PAGE, memory.limits.max
        return cls(
            module,
            imports,
            entries,
            memory=True,
            memory_least=least,
            memory_most=None if most is None else most * PAGE,
        )


def typed(kind: object) -> tuple[list[str], list[str]] | None:
    """Parameters and results of a function's type; None for any other."""
    if not isinstance(kind, wasmtime.FuncType):
        return None
    return [str(each) for each in kind.params], [str(each) for each in kind.results]


class Running:
    """The call that a sandbox runs now."""

    memory: Extern | None = None
    tray: Extern | None = None
    tray_address = 0
    stream: Stream | None = None
    clock = 0
    answer = b""
    cut = False
    """It was in a sleep when its time was over."""
    within: Trapped | None = None
    """How a host function that runs code of its own was ended: its stack and its time are the guest's."""
    defect: BaseException | None = None

    def __init__(self, call: Call, store: Any) -> None:
        self.call = call
        self.store = store
        if call.deterministic:
            self.stream = Stream(call.seed)

    def prepare(self) -> None:
        """What a call with WASI has besides."""
        self.taken = [0, 0]
        self.seen = [0, 0]
        self.kept = [bytearray(), bytearray()]
        self.steady = Steady(self.call)
