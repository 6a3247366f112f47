"""A guest that does what its request says: calls of WASI and of hzc with any arguments, without a compile for each.

A request is a list of operations, then bytes at ``BLOB``; the response has eight bytes for each operation that was
done. ``load``, ``store``, ``grow`` and ``size`` reach its own memory; ``global`` swaps a global, ``table`` grows a
table and ``elem`` tells whether an entry of it is null.
"""

from __future__ import annotations

import struct
from functools import cache

from hanzo_compute.adapters.sandbox import hostcalls
from tests.support.wasm import wat

WASI = {
    "args_get": "i32 i32",
    "args_sizes_get": "i32 i32",
    "environ_get": "i32 i32",
    "environ_sizes_get": "i32 i32",
    "clock_res_get": "i32 i32",
    "clock_time_get": "i32 i64 i32",
    "fd_advise": "i32 i64 i64 i32",
    "fd_allocate": "i32 i64 i64",
    "fd_close": "i32",
    "fd_datasync": "i32",
    "fd_fdstat_get": "i32 i32",
    "fd_fdstat_set_flags": "i32 i32",
    "fd_fdstat_set_rights": "i32 i64 i64",
    "fd_filestat_get": "i32 i32",
    "fd_filestat_set_size": "i32 i64",
    "fd_filestat_set_times": "i32 i64 i64 i32",
    "fd_pread": "i32 i32 i32 i64 i32",
    "fd_prestat_get": "i32 i32",
    "fd_prestat_dir_name": "i32 i32 i32",
    "fd_pwrite": "i32 i32 i32 i64 i32",
    "fd_read": "i32 i32 i32 i32",
    "fd_readdir": "i32 i32 i32 i64 i32",
    "fd_renumber": "i32 i32",
    "fd_seek": "i32 i64 i32 i32",
    "fd_sync": "i32",
    "fd_tell": "i32 i32",
    "fd_write": "i32 i32 i32 i32",
    "path_create_directory": "i32 i32 i32",
    "path_filestat_get": "i32 i32 i32 i32 i32",
    "path_filestat_set_times": "i32 i32 i32 i32 i64 i64 i32",
    "path_link": "i32 i32 i32 i32 i32 i32 i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
    "path_readlink": "i32 i32 i32 i32 i32 i32",
    "path_remove_directory": "i32 i32 i32",
    "path_rename": "i32 i32 i32 i32 i32 i32",
    "path_symlink": "i32 i32 i32 i32 i32",
    "path_unlink_file": "i32 i32 i32",
    "poll_oneoff": "i32 i32 i32 i32",
    "proc_exit": "i32",
    "proc_raise": "i32",
    "sched_yield": "",
    "random_get": "i32 i32",
    "sock_accept": "i32 i32 i32",
    "sock_recv": "i32 i32 i32 i32 i32 i32",
    "sock_send": "i32 i32 i32 i32 i32",
    "sock_shutdown": "i32 i32",
}
"""Functions of WASI preview 1 and their parameters (``wasi_snapshot_preview1.witx``)."""

OWN = {"load": 1, "store": 2, "grow": 1, "size": 0, "global": 1, "table": 1, "elem": 1}

ARGS = 9
OP = struct.Struct("<q9q")
OPS_MAX = 200
RESULTS = 32768
BASE = 65536
BLOB = BASE + 8 + OPS_MAX * OP.size + 56
PAGES = 8
END = PAGES * 65536
"""Bytes of its memory at the start."""

SUCCESS, BADF, FAULT, INVAL, MFILE, NOSPC, NOTCAPABLE, PERM, NOENT, FBIG = 0, 8, 21, 28, 33, 51, 76, 63, 44, 22


def hzc_params(name: str) -> str:
    """The parameters of a host function, as it is imported."""
    kinds = {"bytes": "i32 i32", "buffer": "i32 i32", "out": "i32"}
    return " ".join(kinds.get(kind, kind) for kind in hostcalls.FUNCTIONS[name].params)


@cache
def names() -> dict[str, int]:
    """The number of each operation."""
    return {name: number for number, name in enumerate([*WASI, *(f"hzc.{name}" for name in hostcalls.FUNCTIONS), *OWN])}


def _arg(n: int, kind: str) -> str:
    load = f"(i64.load offset={8 + 8 * n} (local.get $at))"
    return load if kind == "i64" else f"(i32.wrap_i64 {load})"


def _call(target: str, params: str, result: str | None) -> str:
    given = " ".join(_arg(n, kind) for n, kind in enumerate(params.split()))
    made = f"(call {target} {given})"
    if result is None:
        return f"(i64.const 0) {made}"
    return made if result == "i64" else f"(i64.extend_i32_u {made})"


@cache
def module(exports: str = '(export "memory" (memory 0))', extra: str = "", *, hzc: bool = True) -> bytes:
    """The guest."""
    imports, cases = [], []
    for name, params in WASI.items():
        result = None if name == "proc_exit" else "i32"
        told = f" (result {result})" if result else ""
        imports.append(f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {params}){told}))')
        cases.append(_call(f"${name}", params, result))
    for name, shape in hostcalls.FUNCTIONS.items():
        params = hzc_params(name)
        if hzc:
            imports.append(f'(import "hzc" "{name}" (func $hzc.{name} (param {params}) (result {shape.result})))')
        cases.append(_call(f"$hzc.{name}", params, shape.result) if hzc else "(unreachable)")
    cases += [
        f"(i64.load {_arg(0, 'i32')})",
        f"(i64.const 0) (i64.store {_arg(0, 'i32')} {_arg(1, 'i64')})",
        f"(i64.extend_i32_s (memory.grow {_arg(0, 'i32')}))",
        "(i64.extend_i32_u (memory.size))",
        f"(global.get $g) (global.set $g {_arg(0, 'i64')})",
        f"(i64.extend_i32_s (table.grow $t (ref.func $alloc) {_arg(0, 'i32')}))",
        f"(i64.extend_i32_u (ref.is_null (table.get $t {_arg(0, 'i32')})))",
    ]
    blocks = "".join(f"(block $b{n} " for n in reversed(range(len(cases))))
    # Each case stores its result and goes on with the next operation.
    bodies = "".join(f") (local.set $found {case}) (br $done)" for case in _stacked(cases))
    table = " ".join(f"$b{n}" for n in range(len(cases)))
    return wat(
        f"""(module {" ".join(imports)}
          (memory {PAGES}) (table $t 1 funcref) (global $g (mut i64) (i64.const 0)) {exports}
          (elem declare func $alloc)
          (func $alloc (export "alloc") (param i32) (result i32) (i32.const {BASE}))
          (func $one (param $at i32) (result i64) (local $found i64)
            (block $done {blocks}
              (br_table {table} $b0 (i32.wrap_i64 (i64.load (local.get $at))))
              {bodies})
            (local.get $found))
          (func (export "handle") (param $at i32) (param $size i32) (result i64) (local $left i32) (local $out i32)
            (local.set $left (i32.wrap_i64 (i64.load (local.get $at))))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (local.set $out (i32.const {RESULTS}))
            (block $end (loop $next
              (br_if $end (i32.eqz (local.get $left)))
              (i64.store (local.get $out) (call $one (local.get $at)))
              (local.set $out (i32.add (local.get $out) (i32.const 8)))
              (local.set $at (i32.add (local.get $at) (i32.const {OP.size})))
              (local.set $left (i32.sub (local.get $left) (i32.const 1)))
              (br $next)))
            (i64.or (i64.shl (i64.const {RESULTS}) (i64.const 32))
                    (i64.extend_i32_u (i32.sub (local.get $out) (i32.const {RESULTS})))))
          {extra})"""
    )


def _stacked(cases: list[str]) -> list[str]:
    """Folded text of what leaves one i64 on the stack."""
    return [f"(block (result i64) {case})" for case in cases]


class Script:
    """A request in the making."""

    def __init__(self) -> None:
        self._ops: list[bytes] = []
        self._blob = b""

    def add(self, name: str, *args: int) -> Script:
        """One more operation."""
        signed = [_signed(arg) for arg in args]
        self._ops.append(OP.pack(names()[name], *signed, *[0] * (ARGS - len(signed))))
        assert len(self._ops) <= OPS_MAX
        return self

    def blob(self, data: bytes) -> int:
        """Bytes of the request: where they will be."""
        at = BLOB + len(self._blob)
        self._blob += data + bytes(-len(data) % 8)
        return at

    def room(self, size: int) -> int:
        """Room in the request."""
        return self.blob(bytes(size))

    def iovec(self, *pieces: tuple[int, int]) -> int:
        """An array of iovecs."""
        return self.blob(b"".join(struct.pack("<II", at & 0xFFFFFFFF, size & 0xFFFFFFFF) for at, size in pieces))

    def write(self, fd: int, data: bytes) -> Script:
        """``fd_write`` of these bytes."""
        return self.add("fd_write", fd, self.iovec((self.blob(data), len(data))), 1, self.room(4))

    def open(self, folder: int, path: str, *, how: int = 0, rights: int = -1, flags: int = 0, at: int = 0) -> Script:
        """``path_open``; the descriptor goes to ``at``, or nowhere in particular."""
        name = path.encode()
        if rights < 0:
            rights = ALL_RIGHTS if how & (CREATE | TRUNCATE) else ALL_RIGHTS & ~FD_WRITE
        return self.add(
            "path_open", folder, 1, self.blob(name), len(name), how, rights, rights, flags, at or self.room(4)
        )

    def path(self, name: str, folder: int, path: str) -> Script:
        """One of the functions of a folder and a path."""
        text = path.encode()
        return self.add(name, folder, self.blob(text), len(text))

    def request(self) -> bytes:
        """What the guest is called with."""
        head = len(self._ops).to_bytes(8, "little") + b"".join(self._ops)
        return head.ljust(BLOB - BASE, b"\0") + self._blob


def results(output: bytes) -> list[int]:
    """What the operations gave."""
    return [value for (value,) in struct.iter_unpack("<q", output)]


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >> 63 else value


CREATE, DIRECTORY, EXCLUSIVE, TRUNCATE = 1, 2, 4, 8
"""Flags of ``path_open``."""
ALL_RIGHTS, FD_WRITE = 0x1FFFFFFF, 1 << 6
