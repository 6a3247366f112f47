"""All use of wasmtime's binding below its public API, and the way without it.

The public API looks types up at every call and makes a Python object of everything: that costs more than the sandbox.
:class:`Raw` calls the C API directly (ctypes; the names are those of wasmtime's C headers), which is private to the
binding and tied to its version; ``public.Public`` does the same by documented means alone, for any other version, or if
``HZC_WASMTIME_PUBLIC`` is set. Both pass the same tests.

Host functions get the context of their caller and integers, and return an integer or None. They must not raise: the
binding keeps an exception of a callback in a variable of the process, where another thread's call picks it up.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_void_p
from dataclasses import dataclass
from typing import Any, Final, Protocol

import wasmtime

VERSION: Final = importlib.metadata.version("wasmtime")
RAW_VERSIONS: Final = ("50.",)
"""Versions of the binding whose C API Raw was written against."""

NAME_MOST: Final = 200
"""Characters of a function's name in a trap: a guest may call its functions what it likes."""
_VALUE: Final = 16
"""Bytes of a value in a call (``wasmtime_val_raw_t``); an integer is in the first of them."""
_VALUES_MOST: Final = 11
_FORMS: Final = {"i32": "i12x", "i64": "q8x"}
_ENDED: Final[dict[str | None, struct.Struct]] = {
    None: struct.Struct("<Q8x"),
    **{kind: struct.Struct(f"<Q8x{form}") for kind, form in _FORMS.items()},
}
"""A frame after its call: the trap, and the result."""
_PACK_ALLOC: Final = struct.Struct("<I12x").pack_into
_UNPACK_ALLOC: Final = struct.Struct("<Q8xI").unpack_from
_PACK_HANDLE: Final = struct.Struct("<I12xI12x").pack_into
_UNPACK_HANDLE: Final = struct.Struct("<Q8xQ").unpack_from
_ARENA: Final = 128
FUEL_UNLIMITED: Final = 2**63 - 1

KEPT: Final = 5 << 18
"""Bytes of a memory that are cleared by writing zeros, which is cheaper than pages that are faulted in anew: enough for
a request of 1 MiB behind 64 KiB of stack and data, or for Rust's 1 MiB of stack and some heap. The rest goes back to
the kernel. Zeros are written whether the guest has used its memory or not: more would cost those that use little."""
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
    instances: int = 5
    """The guest, the gate, the ward, the reader of directories, and a memory for a guest without one."""
    tables: int = 8
    memories: int = 4


@dataclass(frozen=True, slots=True)
class Pool:
    """Slots of a pooling allocator: what may exist at a time in an engine."""

    instances: int = 16
    memories: int = 4
    tables: int = 8
    tables_each: int = 4
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
        names = [frame.func_name or f"function {frame.func_index}" for frame in trap.frames[:3]]
        self.functions = [name[:NAME_MOST] for name in names]


class Refused(Exception):
    """A guest gave something back that cannot be taken."""


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

    def exports(self, store: Any, instance: Any, names: Sequence[str]) -> list[Extern | None]:
        """Several exports."""
        ...

    def define(self, linker: wasmtime.Linker, function: HostFunction, alive: list[Any]) -> None:
        """Add a host function to a linker; what must live as long as it goes to ``alive``."""
        ...

    def call(
        self, store: Any, function: Extern, params: Sequence[int], kinds: Sequence[str], result: str | None
    ) -> int:
        """Call a function of integers. Raises Trapped, wasmtime.WasmtimeError."""
        ...

    def exchange(self, store: Any, instance: Any, memory: Extern, data: bytes, most: int) -> bytes:
        """Hand bytes to a reactor's ``handle``, and take ``most`` at most back.

        ``alloc`` and ``handle`` must have been seen to have their types. Raises Trapped, wasmtime.WasmtimeError,
        Refused.
        """
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
    """Bytes of a memory; None if they do not lie in it, or are too many for one object of ctypes."""
    at &= 0xFFFFFFFF
    if not 0 <= size < 2**31 or at + size > backend.size(context, memory):
        return None
    return ctypes.string_at(backend.address(context, memory) + at, size)


def write(backend: Backend, context: Context, memory: Extern, at: int, data: bytes) -> bool:
    """Write into a memory; False, and nothing is written, if it does not reach that far."""
    at &= 0xFFFFFFFF
    if at + len(data) > backend.size(context, memory):
        return False
    ctypes.memmove(backend.address(context, memory) + at, data, len(data))
    return True


def placed(at: int, size: int, total: int) -> int:
    """Where a request of that size goes. Raises Refused."""
    if at + size > total:
        raise Refused(f"alloc({size}) gave {at}, which does not lie in its memory")
    return at


def returned(packed: int, most: int) -> tuple[int, int]:
    """Where the response is, and its size. Raises Refused."""
    at, size = packed >> 32 & 0xFFFFFFFF, packed & 0xFFFFFFFF
    if size > most:
        raise Refused(f"handle returned {size} bytes, over the bound of {most}")
    return at, size


def outside(at: int, size: int) -> Refused:
    """The error for a response that is not in the memory."""
    return Refused(f"handle returned {size} bytes at {at}, which do not lie in its memory")


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
        "max_tables_per_module": size.tables_each,
        "table_elements": size.table_elements,
        # 50,000 functions that escape and 20,000 globals, as many as a module may have, take 2 MiB.
        "max_core_instance_size": 4 << 20,
        "linear_memory_keep_resident": KEPT,
        "table_keep_resident": 1 << 12,
    }.items():
        getattr(ffi, f"{prefix}{name}_set")(made, value)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), made)
    ffi.wasmtime_pooling_allocation_config_delete(made)
    return True


def _reservable(size: int) -> bool:
    return _mappable(size, 0)


def fits(size: int) -> bool:
    """Whether this process could have so many bytes more."""
    return _mappable(size, mmap.PROT_READ | mmap.PROT_WRITE)


def _mappable(size: int, prot: int) -> bool:
    try:
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE, prot=prot):
            return True
    except (OSError, ValueError):
        return False


def raw_fits() -> bool:
    """Whether Raw can be used with the binding that is installed."""
    return VERSION.startswith(RAW_VERSIONS) and not os.environ.get("HZC_WASMTIME_PUBLIC")


def backend() -> Backend:
    """The fastest that fits."""
    if raw_fits():
        return Raw()
    from hanzo_compute.adapters.sandbox.public import Public

    return Public()


class _Frame:
    """Room for one call: where its trap is put, and then the values, in and out."""

    __slots__ = ("at", "memory", "values")

    def __init__(self) -> None:
        self.memory = bytearray(_VALUE * (1 + _VALUES_MOST))
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.values = self.at + _VALUE


class _Arena:
    """Room for what a store's lookups give."""

    __slots__ = ("addresses", "memory")

    def __init__(self, size: int) -> None:
        self.memory = ctypes.create_string_buffer(size * _ARENA)
        begin = ctypes.addressof(self.memory)
        self.addresses = range(begin, begin + size * _ARENA, size)


class _RawStore:
    __slots__ = ("arenas", "context", "pointer", "slots")

    def __init__(self, pointer: int, context: int, arena: _Arena) -> None:
        self.pointer = pointer
        self.context = context
        self.arenas = [arena]
        self.slots = iter(arena.addresses)


class Raw:
    """The C API itself, with addresses as integers: ctypes makes an object of every pointer that has a type.

    An extern or an instance is the address of a slot that belongs to its store. Functions that are done at once are
    called without giving the GIL up.
    """

    def __init__(self) -> None:
        from wasmtime import _bindings, _ffi

        self._c: Any = _bindings
        self._ffi: Any = _ffi
        brief, free = ctypes.PyDLL(None, handle=_ffi.dll._handle), _ffi.dll

        def typed(dll: Any, name: str, result: Any, *params: Any) -> Any:
            # Not dll.name: that object is shared, and has the binding's own types.
            return (ctypes.PYFUNCTYPE if dll is brief else ctypes.CFUNCTYPE)(result, *params)((name, dll))

        p, size = c_void_p, ctypes.c_size_t
        text = ctypes.c_char_p
        self._store_new = typed(brief, "wasmtime_store_new", p, p, p, p)
        self._store_context = typed(brief, "wasmtime_store_context", p, p)
        self._store_limiter = typed(brief, "wasmtime_store_limiter", None, p, *[ctypes.c_int64] * 5)
        self._store_delete = typed(free, "wasmtime_store_delete", None, p)
        self._set_deadline = typed(brief, "wasmtime_context_set_epoch_deadline", None, p, ctypes.c_uint64)
        self._set_fuel = typed(brief, "wasmtime_context_set_fuel", p, p, ctypes.c_uint64)
        self._get_fuel = typed(brief, "wasmtime_context_get_fuel", p, p, p)
        self._set_wasi = typed(brief, "wasmtime_context_set_wasi", p, p, p)
        self._instance_new = typed(free, "wasmtime_instance_new", p, p, p, p, size, p, p)
        self._pre_instantiate = typed(free, "wasmtime_instance_pre_instantiate", p, p, p, p, p)
        self._export_get = typed(brief, "wasmtime_instance_export_get", ctypes.c_bool, p, p, text, size, p)
        self._call = typed(free, "wasmtime_func_call_unchecked", p, p, p, p, size, p)
        self._caller_context = typed(brief, "wasmtime_caller_context", p, p)
        self._memory_size = typed(brief, "wasmtime_memory_data_size", size, p, p)
        self._memory_data = typed(brief, "wasmtime_memory_data", p, p, p)
        self._define = typed(brief, "wasmtime_linker_define_func_unchecked", p, p, text, size, text, size, p, p, p, p)
        self._callback = ctypes.CFUNCTYPE(p, p, p, p, size)
        self._slot = ctypes.sizeof(_bindings.wasmtime_extern_t)
        self._inner = _bindings.wasmtime_extern_t.of.offset
        self._packed: dict[Sequence[str], struct.Struct] = {}
        self._frames: list[_Frame] = []
        self._arenas: list[_Arena] = []

    def open(self, engine: wasmtime.Engine, limits: Limits) -> _RawStore:
        pointer = self._store_new(engine.ptr(), None, None)
        self._store_limiter(
            pointer, limits.memory, limits.table_elements, limits.instances, limits.tables, limits.memories
        )
        arena = self._arenas.pop() if self._arenas else _Arena(self._slot)
        return _RawStore(pointer, self._store_context(pointer), arena)

    def close(self, store: _RawStore) -> None:
        self._store_delete(store.pointer)
        self._arenas.append(store.arenas[0])

    def arm(self, store: _RawStore, ticks: int, fuel: int | None) -> None:
        self._set_deadline(store.context, ticks)
        if fuel is not None:
            self._fine(self._set_fuel(store.context, fuel))

    def fuel(self, store: _RawStore) -> int:
        left = ctypes.c_uint64()
        self._fine(self._get_fuel(store.context, byref(left)))
        return left.value

    def refuel(self, store: _RawStore, fuel: int) -> None:
        self._fine(self._set_fuel(store.context, fuel))

    def wasi(self, store: _RawStore, config: wasmtime.WasiConfig) -> None:
        self._fine(self._set_wasi(store.context, config._consume()))

    def stdin(self, config: wasmtime.WasiConfig, data: bytes) -> None:
        self._c._wasi_config_set_stdin_bytes(config.ptr(), byref(self._ffi.bytes_to_capi(data)))

    def instantiate(self, store: _RawStore, module: wasmtime.Module, imports: Sequence[Extern]) -> Any:
        given, count = None, len(imports)
        if count:
            given = imports[0]
            # Slots are taken in order: what was looked up one after the other lies together.
            if imports != list(range(given, given + count * self._slot, self._slot)):
                given = b"".join([ctypes.string_at(each, self._slot) for each in imports])
        instance, trap = self._next(store), c_void_p()
        error = self._instance_new(store.context, module.ptr(), given, count, instance, byref(trap))
        if error or trap.value:
            self._raise(error, trap.value)
        return instance

    def preinstantiate(self, store: _RawStore, pre: wasmtime.InstancePre) -> Any:
        instance, trap = self._next(store), c_void_p()
        error = self._pre_instantiate(pre.ptr(), store.context, instance, byref(trap))
        if error or trap.value:
            self._raise(error, trap.value)
        return instance

    def export(self, store: _RawStore, instance: Any, name: str) -> Extern | None:
        encoded, item = name.encode(), self._next(store)
        return item if self._export_get(store.context, instance, encoded, len(encoded), item) else None

    def exports(self, store: _RawStore, instance: Any, names: Sequence[str]) -> list[Extern | None]:
        get, context, slots = self._export_get, store.context, self._next
        found: list[Extern | None] = []
        for name in names:
            what, item = name.encode(), slots(store)
            found.append(item if get(context, instance, what, len(what), item) else None)
        return found

    def define(self, linker: wasmtime.Linker, function: HostFunction, alive: list[Any]) -> None:
        call, result, context_of = function.call, function.result, self._caller_context
        params = self._form(function.params)

        def called(env: Any, caller: Any, raw: int, count: int) -> int:
            found = call(context_of(caller), *params.unpack(ctypes.string_at(raw, params.size)))
            if result == "i32":
                ctypes.c_int32.from_address(raw).value = found or 0
            elif result is not None:
                ctypes.c_int64.from_address(raw).value = found or 0
            return 0

        callback = self._callback(called)
        value = {"i32": wasmtime.ValType.i32, "i64": wasmtime.ValType.i64}
        kind = wasmtime.FuncType([value[each]() for each in function.params], [value[result]()] if result else [])
        alive += [callback, kind]
        module, name = function.module.encode(), function.name.encode()
        address = ctypes.cast(callback, c_void_p)
        self._fine(self._define(linker.ptr(), module, len(module), name, len(name), kind.ptr(), address, None, None))

    def call(
        self, store: _RawStore, function: Extern, params: Sequence[int], kinds: Sequence[str], result: str | None
    ) -> int:
        # A host function may call into the guest while a call of it is under way.
        frame = self._frames.pop() if self._frames else _Frame()
        if params:
            (self._packed.get(kinds) or self._form(kinds)).pack_into(frame.memory, _VALUE, *params)
        error = self._call(store.context, function + self._inner, frame.values, len(params) or 1, frame.at)
        ended = _ENDED[result].unpack_from(frame.memory)
        if error or ended[0]:
            self._raise(error, ended[0])  # the frame is left as it is, and not used again
        self._frames.append(frame)
        return ended[1] if result else 0

    def exchange(self, store: _RawStore, instance: Any, memory: Extern, data: bytes, most: int) -> bytes:
        # What `export`, `call`, `read` and `write` do, without a Python call for each: it is half of a short request.
        context, inner, call, get = store.context, self._inner, self._call, self._export_get
        alloc, handle, memory = self._next(store), self._next(store), memory + inner
        get(context, instance, b"alloc", 5, alloc)
        get(context, instance, b"handle", 6, handle)
        frame, length = _Frame() if not self._frames else self._frames.pop(), len(data)
        given, values = frame.memory, frame.values
        _PACK_ALLOC(given, _VALUE, length)
        error = call(context, alloc + inner, values, 1, frame.at)
        trap, at = _UNPACK_ALLOC(given)
        if error or trap:
            self._raise(error, trap)
        at = placed(at, length, self._memory_size(context, memory))
        ctypes.memmove(self._memory_data(context, memory) + at, data, length)
        _PACK_HANDLE(given, _VALUE, at, length)
        error = call(context, handle + inner, values, 2, frame.at)
        trap, packed = _UNPACK_HANDLE(given)
        if error or trap:
            self._raise(error, trap)
        self._frames.append(frame)
        at, length = returned(packed, most)
        if at + length > self._memory_size(context, memory):
            raise outside(at, length)
        return ctypes.string_at(self._memory_data(context, memory) + at, length)

    def context(self, store: _RawStore) -> Context:
        return store.context

    def size(self, context: Context, memory: Extern) -> int:
        found: int = self._memory_size(context, memory + self._inner)
        return found

    def address(self, context: Context, memory: Extern) -> int:
        return self._memory_data(context, memory + self._inner) or 0

    def _next(self, store: _RawStore) -> int:
        """A slot in a store."""
        at = next(store.slots, 0)
        if not at:
            arena = _Arena(self._slot)
            store.arenas.append(arena)
            store.slots = iter(arena.addresses)
            at = next(store.slots)
        return at

    def _form(self, kinds: Sequence[str]) -> struct.Struct:
        form = self._packed[kinds] = struct.Struct("<" + "".join(_FORMS[kind] for kind in kinds))
        return form

    def _fine(self, error: int | None) -> None:
        if error:
            raise wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, POINTER(self._c.wasmtime_error_t)))

    def _raise(self, error: int | None, trap: int | None) -> None:
        if trap:
            raise Trapped(wasmtime.Trap._from_ptr(ctypes.cast(trap, POINTER(self._c.wasm_trap_t))))
        self._fine(error)


def signed(value: int) -> int:
    """An unsigned 32-bit integer as a signed one."""
    return value - (1 << 32) if value >= 1 << 31 else value
