"""Imports and exports as they are read from a module's bytes."""

from __future__ import annotations

import random
import time

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


def section(number: int, content: bytes) -> bytes:
    size = len(content)
    return (
        bytes([number])
        + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
        + content
    )


SLOW = {
    "empty declarations of locals": (
        section(3, b"\1\0") + section(10, b"\1\x84\x89\x7a" + b"\xc0\x84\x3d" + b"\0\x7f" * 1_000_000 + b"\x0b"),
        "declare locals over",
    ),
    "empty sections": (b"\0\1\0" * 2_000_000, "sections"),
    "the same section again and again": (section(2, b"\xe8\7" + b"\1a\1b\0\0" * 1000) * 1000, "twice"),
}


@pytest.mark.parametrize("what", SLOW)
def test_nothing_takes_long_to_read(what: str) -> None:
    content, why = SLOW[what]
    began = time.thread_time()  # of this thread alone: others may be at work here
    with pytest.raises(InvalidModule, match=why):
        inspect(b"\0asm\1\0\0\0" + content)
    assert time.thread_time() - began < 1
