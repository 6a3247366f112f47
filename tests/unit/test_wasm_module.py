"""Imports and exports as they are read from a module's bytes."""

from __future__ import annotations

import random

import pytest

from hanzo_compute.model.wasm import InvalidModule, inspect
from tests.support.wasm import wat

MODULE = wat(
    """(module
      (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
      (import "env" "mem" (memory 1 2))
      (import "env" "tab" (table 1 funcref))
      (import "env" "glob" (global (mut i64)))
      (import "hzc" "log" (func (param i32 i32)))
      (memory (export "memory") 1)
      (func (export "_start"))
      (global (export "answer") i32 (i32.const 42)))"""
)


def test_imports_and_exports() -> None:
    facts = inspect(MODULE)
    assert facts.imports == [
        ("wasi_snapshot_preview1", "proc_exit", "func"),
        ("env", "mem", "memory"),
        ("env", "tab", "table"),
        ("env", "glob", "global"),
        ("hzc", "log", "func"),
    ]
    assert facts.exports == {"memory": "memory", "_start": "func", "answer": "global"}


def test_an_empty_module() -> None:
    assert inspect(b"\0asm\1\0\0\0").exports == {}


@pytest.mark.parametrize("data", [b"", b"print(1)", b"\0asm", MODULE[:30], b"\0asm\1\0\0\0\2\xff"])
def test_what_is_no_module(data: bytes) -> None:
    with pytest.raises(InvalidModule):
        inspect(data)


def test_altered_bytes_are_read_or_refused() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        data = bytearray(MODULE)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(8, len(data))] = chance.randrange(256)
        try:
            inspect(bytes(data))
        except InvalidModule:
            continue
