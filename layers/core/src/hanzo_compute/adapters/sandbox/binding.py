"""All use of wasmtime's binding below its public API, and the way without it.

The public API looks types up at every call and makes a Python object of everything: that costs more than the sandbox.
:class:`Raw` calls the C API directly (ctypes; the names are those of wasmtime's C headers), which is private to the
binding and tied to its version; :class:`Public` does the same by documented means alone, for any other version, or if
``HZC_WASMTIME_PUBLIC`` is set. Both pass the same tests.

Host functions get the context of their caller and integers, and return an integer or None. They must not raise: the
binding keeps an exception of a callback in a variable of the process, where another thread's call picks it up.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_void_p
from dataclasses import dataclass
from typing import Any, Final, Protocol

import wasmtime

VERSION: Final = importlib.metadata.version("wasmtime")
RAW_VERSIONS: Final = ("50.",)
"""Versions of the binding whose C API Raw was written against."""

FUEL_UNLIMITED: Final = 2**63 - 1

_GUARDS: Final = 64 << 20
_MAP_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0)  # of Python 3.11 and later

Extern = Any
"""Something that an instance imports or exports: belongs to one backend."""
Context = Any
"""What a host function gets to reach the guest's memory with."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one store: of each memory in bytes, of each table in elements; how many of each."""

    memory: int
    table_elements: int
    instances: int = 4
    tables: int = 8
    memories: int = 3


@dataclass(frozen=True, slots=True)
class Pool:
    """Slots of a pooling allocator: what may exist at a time in an engine."""

    instances: int = 16
    memories: int = 4
    tables: int = 8
    table_elements: int = 1_000_000
    memory: int = 4 << 30


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function that guests can import. ``params`` and ``result`` are ``i32`` or ``i64``."""

    module: str
    name: str
    params: tuple[str, ...]
    result: str | None
    call: Callable[..., int | None]


class Trapped(Exception):
    """A guest's code trapped. ``code`` is wasmtime's name of the trap, None for one without."""

    def __init__(self, trap: wasmtime.Trap) -> None:
        super().__init__(trap.message)
        code = trap.trap_code
        self.code = None if code is None else code.name.lower()
        self.functions = [frame.func_name or f"function {frame.func_index}" for frame in trap.frames[:3]]


class Backend(Protocol):
    """One way to use wasmtime. A store belongs to one thread."""

    def open(self, engine: wasmtime.Engine, limits: Limits) -> Any:
        """A store with these limits."""
        ...

    def close(self, store: Any) -> None:
        """End a store and all in it."""
        ...

    def arm(self, store: Any, ticks: int, fuel: int | None) -> None:
        """Interrupt the store's guest ``ticks`` epochs from now, or when its fuel is used up."""
        ...

    def fuel(self, store: Any) -> int:
        """Fuel that is left."""
        ...

    def refuel(self, store: Any, fuel: int) -> None:
        """Let so much fuel be left."""
        ...

    def wasi(self, store: Any, config: wasmtime.WasiConfig) -> None:
        """Give the store a WASI context."""
        ...

    def stdin(self, config: wasmtime.WasiConfig, data: bytes) -> None:
        """Standard input from memory."""
        ...

    def instantiate(self, store: Any, module: wasmtime.Module, imports: Sequence[Extern]) -> Any:
        """An instance. Raises Trapped, wasmtime.WasmtimeError."""
        ...

    def preinstantiate(self, store: Any, pre: wasmtime.InstancePre) -> Any:
        """An instance of a module that is linked already. Raises Trapped, wasmtime.WasmtimeError."""
        ...

    def export(self, store: Any, instance: Any, name: str) -> Extern | None:
        """An export by its name."""
        ...

    def linked(self, store: Any, linker: wasmtime.Linker, module: str, name: str) -> Extern | None:
        """What a linker has under a name, for use in a store."""
        ...

    def define(self, linker: wasmtime.Linker, function: HostFunction, alive: list[Any]) -> None:
        """Add a host function to a linker; what must live as long as it goes to ``alive``."""
        ...

    def call(
        self, store: Any, function: Extern, params: Sequence[int], kinds: Sequence[str], result: str | None
    ) -> int:
        """Call a function of integers. Raises Trapped, wasmtime.WasmtimeError."""
        ...

    def context(self, store: Any) -> Context:
        """The store's context, for :meth:`read` and its like outside of a host function."""
        ...

    def size(self, context: Context, memory: Extern) -> int:
        """Bytes of a memory."""
        ...

    def address(self, context: Context, memory: Extern) -> int:
        """Where a memory lies, until it grows."""
        ...


def read(backend: Backend, context: Context, memory: Extern, at: int, size: int) -> bytes | None:
    """Bytes of a memory; None if they do not lie in it."""
    at &= 0xFFFFFFFF
    if size < 0 or at + size > backend.size(context, memory):
        return None
    return ctypes.string_at(backend.address(context, memory) + at, size)


def write(backend: Backend, context: Context, memory: Extern, at: int, data: bytes) -> bool:
    """Write into a memory; False, and nothing is written, if it does not reach that far."""
    at &= 0xFFFFFFFF
    if at + len(data) > backend.size(context, memory):
        return False
    ctypes.memmove(backend.address(context, memory) + at, data, len(data))
    return True


def pool(config: wasmtime.Config, size: Pool) -> bool:
    """Let an engine take instances from a pool.

    False where that cannot be said to this binding, or where there is not the address space: wasmtime would abort.
    """
    if not raw_fits() or not _reservable(size.memories * (size.memory + _GUARDS)):
        return False
    from wasmtime import _ffi as ffi

    made = ffi.wasmtime_pooling_allocation_config_new()
    prefix = "wasmtime_pooling_allocation_config_"
    for name, value in {
        "total_core_instances": size.instances,
        "total_component_instances": 2,
        "total_memories": size.memories,
        "total_tables": size.tables,
        "total_stacks": 1,
        "total_gc_heaps": 1,
        "max_memory_size": size.memory,
        "table_elements": size.table_elements,
        "max_core_instance_size": 1 << 20,
        # A small memory is cleared by writing zeros, which is cheaper than giving its pages back.
        "linear_memory_keep_resident": 1 << 16,
        "table_keep_resident": 1 << 12,
    }.items():
        getattr(ffi, f"{prefix}{name}_set")(made, value)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), made)
    ffi.wasmtime_pooling_allocation_config_delete(made)
    return True


def _reservable(size: int) -> bool:
    try:
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE, prot=0):
            return True
    except (OSError, ValueError):
        return False


def raw_fits() -> bool:
    """Whether Raw can be used with the binding that is installed."""
    return VERSION.startswith(RAW_VERSIONS) and not os.environ.get("HZC_WASMTIME_PUBLIC")


def backend() -> Backend:
    """The fastest that fits."""
    return Raw() if raw_fits() else Public()


class _RawStore:
    __slots__ = ("context", "pointer")

    def __init__(self, pointer: Any, context: Any) -> None:
        self.pointer = pointer
        self.context = context


class Raw:
    """The C API itself."""

    def __init__(self) -> None:
        from wasmtime import _bindings, _ffi

        self._c: Any = _bindings
        self._ffi: Any = _ffi
        self._no_finalizer = ctypes.CFUNCTYPE(None, c_void_p)()
        self._names: dict[str, Any] = {}
        self._kinds = {"i32": _ffi.WASM_I32, "i64": _ffi.WASM_I64}
        self._arrays = [_bindings.wasmtime_val_raw_t * n for n in range(1, 12)]
        self._trap_type: Any = POINTER(_bindings.wasm_trap_t)

    def open(self, engine: wasmtime.Engine, limits: Limits) -> _RawStore:
        c = self._c
        pointer = c._wasmtime_store_new(engine.ptr(), None, self._no_finalizer)
        c._wasmtime_store_limiter(
            pointer, limits.memory, limits.table_elements, limits.instances, limits.tables, limits.memories
        )
        return _RawStore(pointer, c._wasmtime_store_context(pointer))

    def close(self, store: _RawStore) -> None:
        self._c._wasmtime_store_delete(store.pointer)

    def arm(self, store: _RawStore, ticks: int, fuel: int | None) -> None:
        self._c._wasmtime_context_set_epoch_deadline(store.context, ticks)
        if fuel is not None:
            self._fine(self._c._wasmtime_context_set_fuel(store.context, fuel))

    def fuel(self, store: _RawStore) -> int:
        left = ctypes.c_uint64()
        self._fine(self._c._wasmtime_context_get_fuel(store.context, byref(left)))
        return left.value

    def refuel(self, store: _RawStore, fuel: int) -> None:
        self._fine(self._c._wasmtime_context_set_fuel(store.context, fuel))

    def wasi(self, store: _RawStore, config: wasmtime.WasiConfig) -> None:
        self._fine(self._c._wasmtime_context_set_wasi(store.context, config._consume()))

    def stdin(self, config: wasmtime.WasiConfig, data: bytes) -> None:
        self._c._wasi_config_set_stdin_bytes(config.ptr(), byref(self._ffi.bytes_to_capi(data)))

    def instantiate(self, store: _RawStore, module: wasmtime.Module, imports: Sequence[Extern]) -> Any:
        c = self._c
        given = (c.wasmtime_extern_t * len(imports))(*imports)
        instance, trap = c.wasmtime_instance_t(), self._trap_type()
        error = c._wasmtime_instance_new(store.context, module.ptr(), given, len(imports), byref(instance), byref(trap))
        if error or trap:
            self._raise(error, trap)
        return instance

    def preinstantiate(self, store: _RawStore, pre: wasmtime.InstancePre) -> Any:
        instance, trap = self._c.wasmtime_instance_t(), self._trap_type()
        error = self._c._wasmtime_instance_pre_instantiate(pre.ptr(), store.context, byref(instance), byref(trap))
        if error or trap:
            self._raise(error, trap)
        return instance

    def export(self, store: _RawStore, instance: Any, name: str) -> Extern | None:
        buffer, size = self._name(name)
        item = self._c.wasmtime_extern_t()
        if self._c._wasmtime_instance_export_get(store.context, byref(instance), buffer, size, byref(item)):
            return item
        return None

    def linked(self, store: _RawStore, linker: wasmtime.Linker, module: str, name: str) -> Extern | None:
        where, where_size = self._name(module)
        buffer, size = self._name(name)
        item = self._c.wasmtime_extern_t()
        found = self._c._wasmtime_linker_get(linker.ptr(), store.context, where, where_size, buffer, size, byref(item))
        return item if found else None

    def define(self, linker: wasmtime.Linker, function: HostFunction, alive: list[Any]) -> None:
        kinds = function.params
        result = function.result
        call = function.call
        context_of = self._c._wasmtime_caller_context

        def called(env: Any, caller: Any, raw: Any, count: int) -> int:
            found = call(context_of(caller), *[getattr(raw[n], kind) for n, kind in enumerate(kinds)])
            if result is not None:
                setattr(raw[0], result, found or 0)
            return 0

        callback = self._c.wasmtime_func_unchecked_callback_t(called)
        value = {"i32": wasmtime.ValType.i32, "i64": wasmtime.ValType.i64}
        kind = wasmtime.FuncType([value[each]() for each in kinds], [value[result]()] if result else [])
        alive += [callback, kind]
        module, name = function.module.encode(), function.name.encode()
        self._fine(
            self._c._wasmtime_linker_define_func_unchecked(
                linker.ptr(),
                ctypes.create_string_buffer(module),
                len(module),
                ctypes.create_string_buffer(name),
                len(name),
                kind.ptr(),
                callback,
                None,
                self._no_finalizer,
            )
        )

    def call(
        self, store: _RawStore, function: Extern, params: Sequence[int], kinds: Sequence[str], result: str | None
    ) -> int:
        raw = self._arrays[max(len(params), 1) - 1]()
        for n, kind in enumerate(kinds):
            setattr(raw[n], kind, params[n])
        trap = self._trap_type()
        error = self._c._wasmtime_func_call_unchecked(
            store.context, byref(function.of.func), raw, len(raw), byref(trap)
        )
        if error or trap:
            self._raise(error, trap)
        return getattr(raw[0], result) if result else 0

    def context(self, store: _RawStore) -> Context:
        return store.context

    def size(self, context: Context, memory: Extern) -> int:
        found: int = self._c._wasmtime_memory_data_size(context, byref(memory.of.memory))
        return found

    def address(self, context: Context, memory: Extern) -> int:
        pointer = self._c._wasmtime_memory_data(context, byref(memory.of.memory))
        return ctypes.cast(pointer, c_void_p).value or 0

    def _name(self, name: str) -> tuple[Any, int]:
        found = self._names.get(name)
        if found is None:
            encoded = name.encode()
            found = self._names[name] = (ctypes.create_string_buffer(encoded), len(encoded))
        return found[0], found[1]

    def _fine(self, error: Any) -> None:
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)

    def _raise(self, error: Any, trap: Any) -> None:
        if trap:
            raise Trapped(wasmtime.Trap._from_ptr(trap))
        found = wasmtime.WasmtimeError._from_ptr(error)
        raise found


class Public:
    """The documented API alone."""

    def open(self, engine: wasmtime.Engine, limits: Limits) -> wasmtime.Store:
        store = wasmtime.Store(engine)
        store.set_limits(limits.memory, limits.table_elements, limits.instances, limits.tables, limits.memories)
        return store

    def close(self, store: wasmtime.Store) -> None:
        store.close()

    def arm(self, store: wasmtime.Store, ticks: int, fuel: int | None) -> None:
        store.set_epoch_deadline(ticks)
        if fuel is not None:
            store.set_fuel(fuel)

    def fuel(self, store: wasmtime.Store) -> int:
        return store.get_fuel()

    def refuel(self, store: wasmtime.Store, fuel: int) -> None:
        store.set_fuel(fuel)

    def wasi(self, store: wasmtime.Store, config: wasmtime.WasiConfig) -> None:
        store.set_wasi(config)

    def stdin(self, config: wasmtime.WasiConfig, data: bytes) -> None:
        # It is opened at once, so the name need not last.
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            config.stdin_file = file.name

    def instantiate(self, store: wasmtime.Store, module: wasmtime.Module, imports: Sequence[Extern]) -> Any:
        try:
            return wasmtime.Instance(store, module, imports).exports(store)
        except wasmtime.Trap as trap:
            raise Trapped(trap) from None

    def preinstantiate(self, store: wasmtime.Store, pre: wasmtime.InstancePre) -> Any:
        try:
            return pre.instantiate(store).exports(store)
        except wasmtime.Trap as trap:
            raise Trapped(trap) from None

    def export(self, store: wasmtime.Store, instance: Any, name: str) -> Extern | None:
        return instance.get(name)

    def linked(self, store: wasmtime.Store, linker: wasmtime.Linker, module: str, name: str) -> Extern | None:
        try:
            return linker.get(store, module, name)
        except (KeyError, wasmtime.WasmtimeError):
            return None

    def define(self, linker: wasmtime.Linker, function: HostFunction, alive: list[Any]) -> None:
        value = {"i32": wasmtime.ValType.i32, "i64": wasmtime.ValType.i64}
        kind = wasmtime.FuncType(
            [value[each]() for each in function.params], [value[function.result]()] if function.result else []
        )

        def called(caller: wasmtime.Caller, *params: int) -> int | None:
            found = function.call(caller, *params)
            return (found or 0) if function.result else None

        linker.define_func(function.module, function.name, kind, called, access_caller=True)

    def call(
        self, store: wasmtime.Store, function: Extern, params: Sequence[int], kinds: Sequence[str], result: str | None
    ) -> int:
        try:
            found = function(store, *params)
        except wasmtime.Trap as trap:
            raise Trapped(trap) from None
        return int(found) if result else 0

    def context(self, store: wasmtime.Store) -> Context:
        return store

    def size(self, context: Context, memory: Extern) -> int:
        return int(memory.data_len(context))

    def address(self, context: Context, memory: Extern) -> int:
        return ctypes.cast(memory.data_ptr(context), c_void_p).value or 0
