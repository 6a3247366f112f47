"""``python -m tests.bench.wasm_command FILE``: run a WASI command in this process, without limits or isolation."""

from __future__ import annotations

import sys


def main() -> None:
    import wasmtime

    engine = wasmtime.Engine()
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    store = wasmtime.Store(engine)
    wasi = wasmtime.WasiConfig()
    wasi.inherit_stdout()
    store.set_wasi(wasi)
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, sys.argv[1]))
    start = instance.exports(store)["_start"]
    assert isinstance(start, wasmtime.Func)
    start(store)


if __name__ == "__main__":
    main()
