"""Snapshots of a started interpreter: a module whose memory begins as the interpreter's is once it has started.

CPython takes ten times as long to start as to go on from there. Its module has one way in, ``_start``, which runs it to
the end. So it is run once, with code that leaves by ``os._exit`` where CPython calls a function with no Python frame
below it: its interactive hook. Nothing is on either stack then that is needed: the memory as it is, with the flag
cleared by which wasi-libc refuses a second ``_start``, is that of an embedder who calls ``Py_BytesMain`` twice. The
second call finds the interpreter initialised and only configures it anew (``pyinit_main_reconfigure`` in CPython's
pylifecycle.c): arguments, flags and options are its own, and ``guest/resume.py`` sees to the rest.

Wasmtime maps the memory copy-on-write, so that a copy costs the pages that it touches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import wasmtime

from hanzo_compute.adapters.sandbox import image
from hanzo_compute.adapters.sandbox.engine import InvalidProgram, said
from hanzo_compute.adapters.sandbox.interpreters import Pin, to_snapshot
from hanzo_compute.model import wasm

BLOCK: Final = 4096
"""Bytes: what is all zeros in the memory is left out, by blocks."""
_MEMORY, _GLOBAL, _DATA = 5, 6, 11


def take(module: bytes, pin: Pin, folder: Path) -> bytes:
    """The module of a snapshot. Starts the interpreter in this process; ``folder`` is for its files.

    Raises:
        InvalidProgram: it did not come to where the snapshot is taken, or has not the form that is expected.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        memory = _started(module, to_snapshot(pin.argv), Path(name))
    assert pin.started is not None
    if not image.again(memory, pin.started):
        raise InvalidProgram("its _start has not set the flag that was expected")
    return _with_memory(module, memory)


def _started(module: bytes, argv: list[str], folder: Path) -> bytearray:
    """The memory of a command where it exits with ``image.TAKEN``."""
    config = wasmtime.Config()
    config.cranelift_opt_level = "none"  # it runs once
    store = wasmtime.Store(wasmtime.Engine(config))
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    wasi = wasmtime.WasiConfig()
    wasi.argv = argv
    said_so, empty = folder / "stderr", folder / "in"
    empty.mkdir()
    # The interpreter's part of WASI (wasi-vfs) counts folders once: their names are read anew, and some may be missing.
    for number in range(image.FOLDERS):
        wasi.preopen_dir(str(empty), f"/.{number}")
    wasi.stderr_file = str(said_so)
    store.set_wasi(wasi)
    instance = linker.instantiate(store, wasmtime.Module(store.engine, module))
    start, memory = instance.exports(store)["_start"], instance.exports(store)["memory"]
    assert isinstance(start, wasmtime.Func)
    assert isinstance(memory, wasmtime.Memory)
    try:
        start(store)
        code = 0
    except wasmtime.ExitTrap as ended:
        code = ended.code
    except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
        raise InvalidProgram(f"it could not be started: {said(error)}") from None
    if code != image.TAKEN:
        words = said_so.read_text(encoding="utf-8", errors="backslashreplace").strip()[-500:]
        raise InvalidProgram(f"it ended with {code} while it started: {words}")
    return memory.read(store)


def _with_memory(module: bytes, memory: bytearray) -> bytes:
    """A module whose memory begins as this; without its custom sections (names, debugging information)."""
    made = bytearray(module[:8])
    for section, begin, end in wasm.sections(module):
        contents = module[begin:end]
        if section == _GLOBAL and contents[:1] != b"\1":
            raise InvalidProgram("it has other globals than the stack pointer, which is as it was")
        if section == _MEMORY:
            contents = b"\1\0" + _leb(len(memory) // wasm.PAGE)
        elif section == _DATA:
            contents = _segments(memory)
        if section:
            made += bytes([section]) + _leb(len(contents)) + contents
    return bytes(made)


def _segments(memory: bytearray) -> bytes:
    """A data section (§5.5.14) of all that is not zero."""
    found = [b"\0\x41" + _leb(at, 6) + b"\x0b" + _leb(len(data)) + data for at, data in _filled(memory)]
    return _leb(len(found)) + b"".join(found)


def _filled(memory: bytearray) -> Iterator[tuple[int, bytes]]:
    nothing, begin = bytes(BLOCK), None
    for at in range(0, len(memory), BLOCK):
        filled = memory[at : at + BLOCK] != nothing
        if filled and begin is None:
            begin = at
        elif not filled and begin is not None:
            yield begin, bytes(memory[begin:at])
            begin = None
    if begin is not None:
        yield begin, bytes(memory[begin:])


def _leb(value: int, bits: int = 7) -> bytes:
    """LEB128 (§5.2.2) of a number that is not negative; as a signed one, its last byte has 6 ``bits``."""
    made = bytearray()
    while value >> bits:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
