"""wasmtime by its documented API alone: slower, and for every version of it."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from ctypes import c_void_p
from typing import Any

import wasmtime

from hanzo_compute.adapters.sandbox import binding
from hanzo_compute.adapters.sandbox.binding import Context, Extern, HostFunction, Limits, Trapped


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

    def exports(self, store: wasmtime.Store, instance: Any, names: Sequence[str]) -> list[Extern | None]:
        return [instance.get(name) for name in names]

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

    def exchange(self, store: wasmtime.Store, instance: Any, memory: Extern, data: bytes, most: int) -> bytes:
        at = self.call(store, instance["alloc"], (len(data),), ("i32",), "i32") & 0xFFFFFFFF
        binding.write(self, store, memory, binding.placed(at, len(data), self.size(store, memory)), data)
        packed = self.call(store, instance["handle"], (binding.signed(at), len(data)), ("i32", "i32"), "i64")
        at, size = binding.returned(packed, most)
        found = binding.read(self, store, memory, at, size)
        if found is None:
            raise binding.outside(at, size)
        return found

    def context(self, store: wasmtime.Store) -> Context:
        return store

    def size(self, context: Context, memory: Extern) -> int:
        return int(memory.data_len(context))

    def address(self, context: Context, memory: Extern) -> int:
        return ctypes.cast(memory.data_ptr(context), c_void_p).value or 0
