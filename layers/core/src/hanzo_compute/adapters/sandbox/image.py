"""The memory of an interpreter that has started, put into instances of its snapshot.

All copies of a snapshot have one seed of hashes, which any program on the machine can read. Who calls a function over
the network must not be able to find keys that collide in it. So for each program that is called so, after a few calls
that start it plainly, a worker starts the interpreter in the way a snapshot is taken, and keeps what differs from the
snapshot: a third of its pages, which each call's memory gets before it goes on. Its seed is known to that program, in
that worker, alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

TAKEN: Final = 86
"""The exit code where a snapshot is taken."""
FOLDERS: Final = 8
"""Folders that a program of a snapshot may have."""
PIECE: Final = 4096
"""Bytes: memory is copied by pages, which are copied anyway once a byte of them is written."""
_FLAG: Final = b"\1\0\0\0"


@dataclass(frozen=True)
class Start:
    """How an interpreter is started for an image."""

    artefact: str
    """Of the interpreter itself, where the program's is that of its snapshot."""
    argv: Sequence[str]
    flag: int
    """The address of the flag (32 bits) with which wasi-libc refuses a second ``_start``."""


def again(memory: bytearray, flag: int) -> bool:
    """Let ``_start`` be called again; False if the flag is not where it should be."""
    found = memory[flag : flag + len(_FLAG)] == _FLAG
    if found:
        memory[flag : flag + len(_FLAG)] = bytes(len(_FLAG))
    return found


class Image:
    """What a memory is to be, where it is not as the snapshot has it."""

    def __init__(self, memory: bytearray) -> None:
        self._whole: bytearray | None = memory
        self._data = ctypes.create_string_buffer(0)
        self._runs: list[tuple[int, int, int]] = []
        """Where they go, where they are in the data, and their sizes."""

    def put(self, address: int) -> None:
        """Make the memory at an address this one: a memory of the same size, as the snapshot begins."""
        if self._whole is not None:
            self._compare(self._whole, address)
            self._whole = None
        begin = ctypes.addressof(self._data)
        for at, offset, size in self._runs:
            ctypes.memmove(address + at, begin + offset, size)

    def _compare(self, whole: bytearray, address: int) -> None:
        base = ctypes.string_at(address, len(whole))
        changed = [at for at in range(0, len(whole), PIECE) if whole[at : at + PIECE] != base[at : at + PIECE]]
        data = bytearray()
        for _, run in groupby(enumerate(changed), lambda each: each[1] - each[0] * PIECE):
            pages = [at for _, at in run]
            self._runs.append((pages[0], len(data), len(pages) * PIECE))
            data += whole[pages[0] : pages[-1] + PIECE]
        self._data = ctypes.create_string_buffer(bytes(data), len(data))
