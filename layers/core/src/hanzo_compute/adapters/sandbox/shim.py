"""Our part of WASI preview 1, in WASM: it stands between a guest and wasmtime's implementation.

A host call from WASM into Python costs microseconds and the GIL; one from WASM to WASM a few nanoseconds. So what
is ours of WASI is two small modules made here. The *gate* is instantiated before the guest, which gets all its imports
from it; the *ward* after it, with the guest's memory, and puts its functions into the gate's table:

    guest ── fd_write ──► gate ── call_indirect ──► ward ── files ──► wasmtime's fd_write
                                                     └── stdout, stderr ──► the tray

The gate holds what is wasmtime's and the host's, in a table for the ward, too: it is linked once, while a look at each
function for each call would cost more than the call. wasmtime's functions look for their caller's export ``memory``:
the ward exports the guest's, and what is not shadowed the guest calls itself. The *tray* is a memory
of the gate: what a call has counted, its budgets, and output that waits to be taken (:mod:`.tray` has the layout).

What the ward does to each function:

- ``proc_exit`` leaves the code in the tray and traps (wasmtime's own turns codes over 125 into an error).
- ``fd_write`` to stdout and stderr copies into the tray, up to a bound; to files it counts against the scratch budget.
- ``poll_oneoff`` is the host's: a sleep ends at the deadline.
- clocks are coarse, or (``deterministic``) logical: each look takes a microsecond, a sleep what it asked for.
- randomness is wasmtime's, or (``deterministic``) comes from the host's seeded generator.
- what opens and makes files counts against budgets; ``deterministic`` hides times, devices, inode numbers, and the
  size and links of directories, which are the file system's; directories are read in order of names.
- standard input is wasmtime's, or (``deterministic``) the host's: a read gives as much as there is, up to its size.

Functions and their types: WASI preview 1, ``wasi_snapshot_preview1.witx``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hanzo_compute.adapters.sandbox import poll
from hanzo_compute.adapters.sandbox.tray import Tray

WASI: Final = "wasi_snapshot_preview1"
PAGE: Final = 65536

I32: Final = "i32"
I64: Final = "i64"

SIGNATURES: Final[dict[str, tuple[str, ...]]] = {
    "proc_exit": (I32,),
    "fd_write": (I32, I32, I32, I32),
    "fd_pwrite": (I32, I32, I32, I64, I32),
    "fd_read": (I32, I32, I32, I32),
    "fd_close": (I32,),
    "fd_renumber": (I32, I32),
    "fd_allocate": (I32, I64, I64),
    "fd_filestat_set_size": (I32, I64),
    "fd_filestat_get": (I32, I32),
    "fd_fdstat_get": (I32, I32),
    "path_filestat_get": (I32, I32, I32, I32, I32),
    "fd_readdir": (I32, I32, I32, I64, I32),
    "path_open": (I32, I32, I32, I32, I32, I64, I64, I32, I32),
    "path_create_directory": (I32, I32, I32),
    "path_link": (I32, I32, I32, I32, I32, I32, I32),
    "path_symlink": (I32, I32, I32, I32, I32),
    "poll_oneoff": (I32, I32, I32, I32),
    "clock_time_get": (I32, I64, I32),
    "clock_res_get": (I32, I32),
    "random_get": (I32, I32),
}
"""Parameters of the functions that are shadowed; all but proc_exit return an errno."""

PASSED: Final[dict[str, tuple[str, ...]]] = {
    "args_get": (I32, I32),
    "args_sizes_get": (I32, I32),
    "environ_get": (I32, I32),
    "environ_sizes_get": (I32, I32),
    "fd_advise": (I32, I64, I64, I32),
    "fd_datasync": (I32,),
    "fd_fdstat_set_flags": (I32, I32),
    "fd_fdstat_set_rights": (I32, I64, I64),
    "fd_filestat_set_times": (I32, I64, I64, I32),
    "fd_pread": (I32, I32, I32, I64, I32),
    "fd_prestat_dir_name": (I32, I32, I32),
    "fd_prestat_get": (I32, I32),
    "fd_seek": (I32, I64, I32, I32),
    "fd_sync": (I32,),
    "fd_tell": (I32, I32),
    "path_filestat_set_times": (I32, I32, I32, I32, I64, I64, I32),
    "path_readlink": (I32, I32, I32, I32, I32, I32),
    "path_remove_directory": (I32, I32, I32),
    "path_rename": (I32, I32, I32, I32, I32, I32),
    "path_unlink_file": (I32, I32, I32),
    "proc_raise": (I32,),
    "sched_yield": (),
    "sock_accept": (I32, I32, I32),
    "sock_recv": (I32, I32, I32, I32, I32, I32),
    "sock_send": (I32, I32, I32, I32, I32),
    "sock_shutdown": (I32, I32),
}
"""The other functions of WASI: wasmtime's, as they are. All return an errno."""

HOST: Final[dict[str, tuple[tuple[str, ...], str | None]]] = {
    "poll": ((I32, I32, I32, I32, I64, I64), I32),
    "drain": ((), None),
    "random": ((I32, I32), I32),
    "readdir": ((I32, I32, I32, I64, I32), I32),
    "stdin": ((I32, I32, I32), I32),
    "control_write": ((I32, I32, I32), I32),
    "control_read": ((I32, I32, I32), I32),
}
"""What the ward asks of the host: parameters and result."""

SHADOWED: Final = tuple(SIGNATURES)
NATIVE: Final = tuple(name for name in SHADOWED if name != "proc_exit")
"""What the ward calls of wasmtime's."""
COUNTED: Final = ("fd_write", "fd_read", "poll_oneoff", "clock_time_get", "random_get", "path_open")

CONTROL_FD: Final = 1000
"""Descriptor by which a program that knows WASI alone calls the host: see :mod:`.hostcalls`."""

CONTROL_NAME: Final = b"hzc.call"
"""Whoever opens this name, in any folder, gets that descriptor: some programs know only those that they opened."""

EBADF: Final = 8
EFBIG: Final = 22
EINTR: Final = 27
EINVAL: Final = 28
EMFILE: Final = 33
ENOSPC: Final = 51

COARSE_NS: Final = 10_000
"""Clocks of the fast profile tell time in steps of this: a finer one helps those who listen to their neighbours."""
LOOK_NS: Final = 1_000
"""What a look at the clock takes in the deterministic profile."""

RANDOM_MOST: Final = 64 << 20
"""Random bytes of one request: what wasmtime's own grants."""

STDOUT: Final = 1
STDERR: Final = 2
STDIN_OWNER: Final = 3
DIRECTORY: Final = 3
"""A directory's file type."""


LIMITS: Final = {
    Tray.CUT_STDOUT: "stdout",
    Tray.CUT_STDERR: "stderr",
    Tray.SCRATCH_FULL: "scratch",
    Tray.TOO_MANY_FILES: "scratch_files",
    Tray.TOO_MANY_OPEN: "open_files",
}
"""Limits that ``FLAGS`` tells of, as outcomes name them."""


READER: Final = f"""(module
  (import "{WASI}" "fd_readdir" (func $native (param i32 i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 2 2)
  (func (export "read") (param $fd i32) (param $cookie i64) (result i64) (local $errno i32)
    (local.set $errno
      (call $native (local.get $fd) (i32.const 16) (i32.const {PAGE}) (local.get $cookie) (i32.const 0)))
    (if (result i64) (local.get $errno)
      (then (i64.sub (i64.const 0) (i64.extend_i32_u (local.get $errno))))
      (else (i64.load32_u (i32.const 0))))))"""
"""Reads directories into a memory of its own, from where the host sorts them: see ``fd_readdir``."""
READER_AT: Final = 16
NOTHING: Final = '(module (memory (export "memory") 0 0))'
"""A memory for a guest that exports none."""


def _typed(params: Sequence[str], result: str | None) -> str:
    return f"(param {' '.join(params)})" + (f" (result {result})" if result else "")


def _type(name: str) -> str:
    return _typed(SIGNATURES[name], None if name == "proc_exit" else I32)


def _gets(params: Sequence[str]) -> str:
    return " ".join(f"(local.get {n})" for n in range(len(params)))


def gate(offered: Sequence[tuple[str, Sequence[str], str | None]]) -> str:
    """The gate, as text. ``offered``: functions of hzc for guests, with their parameters and results.

    It exports a function of WASI by its name, one of hzc as ``hzc.name``.
    """
    parts = [f'(import "{WASI}" "{name}" (func $native_{name} {_type(name)}))' for name in NATIVE]
    parts += [f'(import "host" "{name}" (func $host_{name} {_typed(*kind)}))' for name, kind in HOST.items()]
    for name, params in PASSED.items():
        parts.append(f'(import "{WASI}" "{name}" (func $passed_{name} {_typed(params, I32)}))')
    for name, taken, given in offered:
        parts.append(f'(import "hzc" "{name}" (func $hzc_{name} {_typed(taken, given)}))')
    behind = [f"$native_{name}" for name in NATIVE] + [f"$host_{name}" for name in HOST]
    parts += [f'(memory (export "tray") {Tray.PAGES} {Tray.PAGES})']
    parts += [f'(table $ward (export "ward") {len(SHADOWED)} {len(SHADOWED)} funcref)']
    parts += [f'(table $behind (export "behind") {len(behind)} {len(behind)} funcref)']
    parts += [f"(elem (table $behind) (i32.const 0) func {' '.join(behind)})"]
    for index, (name, params) in enumerate(SIGNATURES.items()):
        called = f"(call_indirect $ward {_type(name)} {_gets(params)} (i32.const {index}))"
        parts.append(f'(func (export "{name}") {_type(name)} {called})')
    parts += [f'(export "{name}" (func $passed_{name}))' for name in PASSED]
    parts += [f'(export "hzc.{name}" (func $hzc_{name}))' for name, *_ in offered]
    return f"(module {' '.join(parts)})"


def ward(*, deterministic: bool) -> str:
    """The ward of a profile, as text."""
    behind = [(f"native_{name}", SIGNATURES[name], I32) for name in NATIVE]
    calls = []
    for index, (name, params, result) in enumerate([*behind, *((f"host_{name}", *HOST[name]) for name in HOST)]):
        kind = _typed(params, result)
        calls.append(f"(func ${name} {kind} (call_indirect $behind {kind} {_gets(params)} (i32.const {index})))")
    return f"""(module
      (import "guest" "memory" (memory $guest 0))
      (import "gate" "tray" (memory $tray {Tray.PAGES} {Tray.PAGES}))
      (import "gate" "ward" (table $ward {len(SHADOWED)} {len(SHADOWED)} funcref))
      (import "gate" "behind" (table $behind {len(calls)} {len(calls)} funcref))
      {" ".join(calls)}
      (export "memory" (memory $guest))
      (elem (table $ward) (i32.const 0) func {" ".join(f"${name}" for name in SHADOWED)})
      {_COMMON}
      {_DETERMINISTIC if deterministic else _FAST}
    )"""


def _count(name: str) -> str:
    at = Tray.COUNTERS + 4 * COUNTED.index(name)
    return f"(i32.store $tray (i32.const {at}) (i32.add (i32.load $tray (i32.const {at})) (i32.const 1)))"


def _flag(bit: int) -> str:
    flags = f"(i32.const {Tray.FLAGS})"
    return f"(i32.store $tray {flags} (i32.or (i32.load $tray {flags}) (i32.const {bit})))"


def _plain(name: str) -> str:
    return f"(func ${name} {_type(name)} (call $native_{name} {_gets(SIGNATURES[name])}))"


def _reads(before: str = "") -> str:
    """``fd_read``, with what is done before wasmtime's."""
    return f"""(func $fd_read (param $fd i32) (param $iovs i32) (param $count i32) (param $ret i32) (result i32)
      {_count("fd_read")}
      (if (i32.eq (local.get $fd) (i32.const {CONTROL_FD}))
        (then (return (call $host_control_read (local.get $iovs) (local.get $count) (local.get $ret)))))
      {before}
      (call $native_fd_read (local.get $fd) (local.get $iovs) (local.get $count) (local.get $ret)))"""


def _makes(name: str) -> str:
    """A function that makes a name in the scratch folder."""
    return f"""(func ${name} {_type(name)} (local $errno i32)
      (if (call $files_full) (then (return (i32.const {ENOSPC}))))
      (local.set $errno (call $native_{name} {_gets(SIGNATURES[name])}))
      (if (i32.eqz (local.get $errno)) (then (call $one_file)))
      (local.get $errno))"""


_COMMON: Final = f"""
(func $proc_exit (param $code i32)
  (i32.store $tray (i32.const {Tray.EXITED}) (i32.const 1))
  (i32.store $tray (i32.const {Tray.CODE}) (local.get $code))
  unreachable)

(func $owner (param $fd i32) (result i32)
  (if (i32.ge_u (local.get $fd) (i32.const {Tray.OWNED})) (then (return (i32.const 0))))
  (i32.load8_u $tray offset={Tray.OWNERS} (local.get $fd)))

(func $own (param $fd i32) (param $owner i32)
  (if (i32.lt_u (local.get $fd) (i32.const {Tray.OWNED}))
    (then (i32.store8 $tray offset={Tray.OWNERS} (local.get $fd) (local.get $owner)))))

;; Whether so many bytes more would be too much for the scratch folder.
(func $scratch_full (param $more i64) (result i32)
  (if (i64.gt_u (local.get $more) (i64.sub (i64.load $tray (i32.const {Tray.SCRATCH_MOST}))
                                           (i64.load $tray (i32.const {Tray.SCRATCH}))))
    (then {_flag(Tray.SCRATCH_FULL)} (return (i32.const 1))))
  (i32.const 0))

(func $scratch_used (param $more i64)
  (i64.store $tray (i32.const {Tray.SCRATCH}) (i64.add (i64.load $tray (i32.const {Tray.SCRATCH})) (local.get $more))))

(func $files_full (result i32)
  (if (i32.ge_u (i32.load $tray (i32.const {Tray.FILES})) (i32.load $tray (i32.const {Tray.FILES_MOST})))
    (then {_flag(Tray.TOO_MANY_FILES)} (return (i32.const 1))))
  (i32.const 0))

(func $one_file
  (i32.store $tray (i32.const {Tray.FILES}) (i32.add (i32.load $tray (i32.const {Tray.FILES})) (i32.const 1))))

;; Bytes that an array of iovecs names.
(func $total (param $iovs i32) (param $count i32) (result i64) (local $sum i64)
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get $count)))
    (local.set $sum (i64.add (local.get $sum) (i64.load32_u $guest offset=4 (local.get $iovs))))
    (local.set $iovs (i32.add (local.get $iovs) (i32.const 8)))
    (local.set $count (i32.sub (local.get $count) (i32.const 1)))
    (br $next)))
  (local.get $sum))

;; Into the region of a stream, which is emptied whenever it is full.
(func $emit (param $stream i32) (param $from i32) (param $size i32)
  (local $slot i32) (local $waiting i32) (local $piece i32)
  (local.set $slot (i32.shl (i32.sub (local.get $stream) (i32.const 1)) (i32.const 2)))
  (block $done (loop $next
    (br_if $done (i32.eqz (local.get $size)))
    (local.set $waiting (i32.load $tray offset={Tray.WAITING[0]} (local.get $slot)))
    (if (i32.ge_u (local.get $waiting) (i32.const {Tray.REGION}))
      (then (call $host_drain)
            (local.set $waiting (i32.load $tray offset={Tray.WAITING[0]} (local.get $slot)))
            (if (i32.ge_u (local.get $waiting) (i32.const {Tray.REGION})) (then unreachable))))
    (local.set $piece (i32.sub (i32.const {Tray.REGION}) (local.get $waiting)))
    (if (i32.gt_u (local.get $piece) (local.get $size)) (then (local.set $piece (local.get $size))))
    (memory.copy $tray $guest
      (i32.add (local.get $waiting)
               (select (i32.const {Tray.REGIONS[0]}) (i32.const {Tray.REGIONS[1]})
                       (i32.eq (local.get $stream) (i32.const 1))))
      (local.get $from) (local.get $piece))
    (i32.store $tray offset={Tray.WAITING[0]} (local.get $slot) (i32.add (local.get $waiting) (local.get $piece)))
    (local.set $from (i32.add (local.get $from) (local.get $piece)))
    (local.set $size (i32.sub (local.get $size) (local.get $piece)))
    (br $next))))

(func $stream_write (param $stream i32) (param $iovs i32) (param $count i32) (param $ret i32) (result i32)
  (local $slot i32) (local $size i32) (local $room i32) (local $done i32)
  (local.set $slot (i32.shl (i32.sub (local.get $stream) (i32.const 1)) (i32.const 2)))
  (block $end (loop $next
    (br_if $end (i32.eqz (local.get $count)))
    (local.set $size (i32.load $guest offset=4 (local.get $iovs)))
    (local.set $room (i32.sub (i32.load $tray offset={Tray.MOST[0]} (local.get $slot))
                              (i32.load $tray offset={Tray.TOTAL[0]} (local.get $slot))))
    (if (i32.gt_u (local.get $size) (local.get $room))
      (then
        (i32.store $tray (i32.const {Tray.FLAGS})
          (i32.or (i32.load $tray (i32.const {Tray.FLAGS})) (local.get $stream)))
        (local.set $size (local.get $room))
        (local.set $count (i32.const 1))
        (if (i32.eqz (i32.or (local.get $size) (local.get $done))) (then (return (i32.const {ENOSPC}))))))
    (call $emit (local.get $stream) (i32.load $guest (local.get $iovs)) (local.get $size))
    (i32.store $tray offset={Tray.TOTAL[0]} (local.get $slot)
      (i32.add (i32.load $tray offset={Tray.TOTAL[0]} (local.get $slot)) (local.get $size)))
    (local.set $done (i32.add (local.get $done) (local.get $size)))
    (local.set $iovs (i32.add (local.get $iovs) (i32.const 8)))
    (local.set $count (i32.sub (local.get $count) (i32.const 1)))
    (br $next)))
  (i32.store $guest (local.get $ret) (local.get $done))
  (i32.const 0))

(func $fd_write (param $fd i32) (param $iovs i32) (param $count i32) (param $ret i32) (result i32)
  (local $owner i32) (local $errno i32)
  {_count("fd_write")}
  (local.set $owner (call $owner (local.get $fd)))
  (if (i32.and (i32.ne (local.get $owner) (i32.const 0)) (i32.ne (local.get $owner) (i32.const {STDIN_OWNER})))
    (then (return (call $stream_write (local.get $owner) (local.get $iovs) (local.get $count) (local.get $ret)))))
  (if (i32.eq (local.get $fd) (i32.const {CONTROL_FD}))
    (then (return (call $host_control_write (local.get $iovs) (local.get $count) (local.get $ret)))))
  (if (call $scratch_full (call $total (local.get $iovs) (local.get $count))) (then (return (i32.const {ENOSPC}))))
  (local.set $errno (call $native_fd_write (local.get $fd) (local.get $iovs) (local.get $count) (local.get $ret)))
  (if (i32.eqz (local.get $errno))
    (then (call $scratch_used (i64.load32_u $guest (local.get $ret)))))
  (local.get $errno))

(func $fd_pwrite (param $fd i32) (param $iovs i32) (param $count i32) (param $at i64) (param $ret i32) (result i32)
  (local $errno i32)
  (if (call $scratch_full (call $total (local.get $iovs) (local.get $count))) (then (return (i32.const {ENOSPC}))))
  (local.set $errno
    (call $native_fd_pwrite (local.get $fd) (local.get $iovs) (local.get $count) (local.get $at) (local.get $ret)))
  (if (i32.eqz (local.get $errno)) (then (call $scratch_used (i64.load32_u $guest (local.get $ret)))))
  (local.get $errno))

(func $fd_allocate (param $fd i32) (param $at i64) (param $size i64) (result i32) (local $errno i32)
  (if (call $scratch_full (local.get $size)) (then (return (i32.const {ENOSPC}))))
  (local.set $errno (call $native_fd_allocate (local.get $fd) (local.get $at) (local.get $size)))
  (if (i32.eqz (local.get $errno)) (then (call $scratch_used (local.get $size))))
  (local.get $errno))

;; A file that is cut gives nothing back: what counts is what was ever asked for.
(func $fd_filestat_set_size (param $fd i32) (param $size i64) (result i32) (local $errno i32)
  (if (call $scratch_full (local.get $size)) (then (return (i32.const {ENOSPC}))))
  (local.set $errno (call $native_fd_filestat_set_size (local.get $fd) (local.get $size)))
  (if (i32.eqz (local.get $errno)) (then (call $scratch_used (local.get $size))))
  (local.get $errno))

(func $fd_close (param $fd i32) (result i32) (local $errno i32)
  (if (i32.eq (local.get $fd) (i32.const {CONTROL_FD})) (then (return (i32.const 0))))
  (local.set $errno (call $native_fd_close (local.get $fd)))
  (if (i32.eqz (local.get $errno)) (then
    (call $own (local.get $fd) (i32.const 0))
    (i32.store $tray (i32.const {Tray.OPEN}) (i32.sub (i32.load $tray (i32.const {Tray.OPEN})) (i32.const 1)))))
  (local.get $errno))

(func $fd_renumber (param $from i32) (param $to i32) (result i32) (local $errno i32)
  (local.set $errno (call $native_fd_renumber (local.get $from) (local.get $to)))
  (if (i32.and (i32.eqz (local.get $errno)) (i32.ne (local.get $from) (local.get $to))) (then
    (call $own (local.get $to) (call $owner (local.get $from)))
    (call $own (local.get $from) (i32.const 0))
    (i32.store $tray (i32.const {Tray.OPEN}) (i32.sub (i32.load $tray (i32.const {Tray.OPEN})) (i32.const 1)))))
  (local.get $errno))

(func $path_open (param $dir i32) (param $lookup i32) (param $path i32) (param $size i32) (param $how i32)
    (param $rights i64) (param $inheriting i64) (param $flags i32) (param $ret i32) (result i32)
  (local $errno i32) (local $creates i32)
  {_count("path_open")}
  (if (i32.eq (local.get $size) (i32.const {len(CONTROL_NAME)})) (then
    (if (i64.eq (i64.load $guest (local.get $path)) (i64.const {int.from_bytes(CONTROL_NAME, "little")})) (then
      (i32.store $guest (local.get $ret) (i32.const {CONTROL_FD}))
      (return (i32.const 0))))))
  (if (i32.ge_s (i32.load $tray (i32.const {Tray.OPEN})) (i32.load $tray (i32.const {Tray.OPEN_MOST})))
    (then {_flag(Tray.TOO_MANY_OPEN)} (return (i32.const {EMFILE}))))
  (local.set $creates (i32.and (local.get $how) (i32.const 1)))
  (if (local.get $creates) (then (if (call $files_full) (then (return (i32.const {ENOSPC}))))))
  (local.set $errno (call $native_path_open (local.get $dir) (local.get $lookup) (local.get $path) (local.get $size)
    (local.get $how) (local.get $rights) (local.get $inheriting) (local.get $flags) (local.get $ret)))
  (if (i32.eqz (local.get $errno)) (then
    (if (local.get $creates) (then (call $one_file)))
    (call $own (i32.load $guest (local.get $ret)) (i32.const 0))
    (i32.store $tray (i32.const {Tray.OPEN}) (i32.add (i32.load $tray (i32.const {Tray.OPEN})) (i32.const 1)))))
  (local.get $errno))

{_makes("path_create_directory")}
{_makes("path_link")}
{_makes("path_symlink")}

;; wasmtime's own streams behind ours are no files and no terminals.
(func $fd_fdstat_get (param $fd i32) (param $ret i32) (result i32) (local $errno i32)
  (if (i32.eq (local.get $fd) (i32.const {CONTROL_FD})) (then
    (i64.store $guest (local.get $ret) (i64.const 0))
    (i64.store $guest offset=8 (local.get $ret) (i64.const -1))
    (i64.store $guest offset=16 (local.get $ret) (i64.const 0))
    (return (i32.const 0))))
  (local.set $errno (call $native_fd_fdstat_get (local.get $fd) (local.get $ret)))
  (if (i32.and (i32.eqz (local.get $errno)) (i32.ne (call $owner (local.get $fd)) (i32.const 0)))
    (then (i32.store8 $guest (local.get $ret) (i32.const 0))))
  (local.get $errno))

(func $poll_oneoff (param $in i32) (param $out i32) (param $count i32) (param $ret i32) (result i32)
  (local $errno i32)
  {_count("poll_oneoff")}
  (if (i32.gt_u (local.get $count) (i32.const {poll.MOST})) (then (return (i32.const {EINVAL}))))
  (local.set $errno (call $poll (local.get $in) (local.get $out) (local.get $count) (local.get $ret)))
  ;; A sleep that was cut short ends the guest: it must not go on as if it had slept.
  (if (i32.eq (local.get $errno) (i32.const {EINTR})) (then unreachable))
  (local.get $errno))
"""

_FAST: Final = f"""
;; Sleeps are the host's, who knows the deadline. It needs the time of both clocks, which goes through the room for
;; events, as wasmtime's clock can only write to the guest's memory. Descriptors are wasmtime's to wait for.
(func $poll (param $in i32) (param $out i32) (param $count i32) (param $ret i32) (result i32)
  (local $left i32) (local $at i32) (local $real i64) (local $errno i32)
  (local.set $left (local.get $count))
  (local.set $at (local.get $in))
  (block $clocks (loop $next
    (br_if $clocks (i32.eqz (local.get $left)))
    (if (i32.load8_u $guest offset=8 (local.get $at))
      (then (return (call $native_poll_oneoff
        (local.get $in) (local.get $out) (local.get $count) (local.get $ret)))))
    (local.set $at (i32.add (local.get $at) (i32.const 48)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br $next)))
  (if (local.get $count) (then
    (local.set $errno (call $native_clock_time_get (i32.const 0) (i64.const 0) (local.get $out)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $real (i64.load $guest (local.get $out)))
    (local.set $errno (call $native_clock_time_get (i32.const 1) (i64.const 0) (local.get $out)))
    (if (local.get $errno) (then (return (local.get $errno))))))
  (call $host_poll (local.get $in) (local.get $out) (local.get $count) (local.get $ret)
    (local.get $real) (if (result i64) (local.get $count)
      (then (i64.load $guest (local.get $out))) (else (i64.const 0)))))

{_reads()}
{_plain("fd_filestat_get")}
{_plain("path_filestat_get")}
{_plain("fd_readdir")}

(func $clock_time_get (param $clock i32) (param $precision i64) (param $ret i32) (result i32) (local $errno i32)
  {_count("clock_time_get")}
  (local.set $errno (call $native_clock_time_get (local.get $clock) (local.get $precision) (local.get $ret)))
  (if (i32.eqz (local.get $errno)) (then
    (i64.store $guest (local.get $ret)
      (i64.sub (i64.load $guest (local.get $ret))
               (i64.rem_u (i64.load $guest (local.get $ret)) (i64.const {COARSE_NS}))))))
  (local.get $errno))

(func $clock_res_get (param $clock i32) (param $ret i32) (result i32) (local $errno i32)
  (local.set $errno (call $native_clock_res_get (local.get $clock) (local.get $ret)))
  (if (i32.eqz (local.get $errno)) (then (i64.store $guest (local.get $ret) (i64.const {COARSE_NS}))))
  (local.get $errno))

(func $random_get (param $at i32) (param $size i32) (result i32)
  {_count("random_get")}
  (if (i32.gt_u (local.get $size) (i32.const {RANDOM_MOST})) (then (return (i32.const {EINVAL}))))
  (call $native_random_get (local.get $at) (local.get $size)))
"""

_OUR_STDIN: Final = f"""
  (if (i32.eq (call $owner (local.get $fd)) (i32.const {STDIN_OWNER}))
    (then (return (call $host_stdin (local.get $iovs) (local.get $count) (local.get $ret)))))"""

_DETERMINISTIC: Final = f"""
;; Whoever waits for a descriptor finds it ready at once, if it is there: wasmtime tells by way of the room for events.
(func $poll (param $in i32) (param $out i32) (param $count i32) (param $ret i32) (result i32)
  (local $left i32) (local $at i32) (local $errno i32)
  (local.set $left (local.get $count))
  (local.set $at (local.get $in))
  (block $end (loop $next
    (br_if $end (i32.eqz (local.get $left)))
    (if (i32.load8_u $guest offset=8 (local.get $at)) (then
      (local.set $errno (call $native_fd_fdstat_get (i32.load $guest offset=16 (local.get $at)) (local.get $out)))
      (if (local.get $errno) (then (return (local.get $errno))))
      (if (i32.eq (i32.load8_u $guest (local.get $out)) (i32.const {DIRECTORY}))
        (then (return (i32.const {EBADF}))))))
    (local.set $at (i32.add (local.get $at) (i32.const 48)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br $next)))
  (call $host_poll (local.get $in) (local.get $out) (local.get $count) (local.get $ret)
    (i64.add (i64.load $tray (i32.const {Tray.CLOCK})) (i64.load $tray (i32.const {Tray.EPOCH})))
    (i64.load $tray (i32.const {Tray.CLOCK}))))

{_reads(_OUR_STDIN)}

;; dev, ino and the three times of a filestat (offsets 0, 8, 40, 48, 56) say nothing about the program's input; nor do
;; a directory's links and size (24, 32).
(func $blur (param $stat i32)
  (if (i32.eq (i32.load8_u $guest offset=16 (local.get $stat)) (i32.const {DIRECTORY}))
    (then
      (i64.store $guest offset=24 (local.get $stat) (i64.const 1))
      (i64.store $guest offset=32 (local.get $stat) (i64.const 0))))
  (i64.store $guest (local.get $stat) (i64.const 0))
  (i64.store $guest offset=8 (local.get $stat) (i64.const 0))
  (i64.store $guest offset=40 (local.get $stat) (i64.const 0))
  (i64.store $guest offset=48 (local.get $stat) (i64.const 0))
  (i64.store $guest offset=56 (local.get $stat) (i64.const 0)))

(func $fd_filestat_get (param $fd i32) (param $ret i32) (result i32) (local $errno i32)
  (local.set $errno (call $native_fd_filestat_get (local.get $fd) (local.get $ret)))
  (if (i32.eqz (local.get $errno)) (then (call $blur (local.get $ret))))
  (local.get $errno))

(func $path_filestat_get (param $fd i32) (param $flags i32) (param $path i32) (param $size i32) (param $ret i32)
    (result i32) (local $errno i32)
  (local.set $errno (call $native_path_filestat_get
    (local.get $fd) (local.get $flags) (local.get $path) (local.get $size) (local.get $ret)))
  (if (i32.eqz (local.get $errno)) (then (call $blur (local.get $ret))))
  (local.get $errno))

(func $fd_readdir (param $fd i32) (param $at i32) (param $size i32) (param $cookie i64) (param $ret i32) (result i32)
  (local $errno i32)
  (local.set $errno
    (call $host_readdir (local.get $fd) (local.get $at) (local.get $size) (local.get $cookie) (local.get $ret)))
  (if (i32.eq (local.get $errno) (i32.const {EINTR})) (then unreachable))
  (local.get $errno))

(func $clock_time_get (param $clock i32) (param $precision i64) (param $ret i32) (result i32) (local $now i64)
  {_count("clock_time_get")}
  (if (i32.gt_u (local.get $clock) (i32.const 1)) (then (return (i32.const {EINVAL}))))
  (local.set $now (i64.add (i64.load $tray (i32.const {Tray.CLOCK})) (i64.const {LOOK_NS})))
  (i64.store $tray (i32.const {Tray.CLOCK}) (local.get $now))
  (if (i32.eqz (local.get $clock))
    (then (local.set $now (i64.add (local.get $now) (i64.load $tray (i32.const {Tray.EPOCH}))))))
  (i64.store $guest (local.get $ret) (local.get $now))
  (i32.const 0))

(func $clock_res_get (param $clock i32) (param $ret i32) (result i32)
  (if (i32.gt_u (local.get $clock) (i32.const 1)) (then (return (i32.const {EINVAL}))))
  (i64.store $guest (local.get $ret) (i64.const {LOOK_NS}))
  (i32.const 0))

(func $random_get (param $at i32) (param $size i32) (result i32)
  {_count("random_get")}
  (if (i32.gt_u (local.get $size) (i32.const {RANDOM_MOST})) (then (return (i32.const {EINVAL}))))
  (call $host_random (local.get $at) (local.get $size)))
"""
