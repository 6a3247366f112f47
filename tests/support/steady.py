"""Programs whose runs must be the same everywhere, and ways to run them: in a worker, and in this process."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from hanzo_compute.adapters.sandbox.call import Bounds, Call, Folder, Report
from hanzo_compute.adapters.sandbox.settings import SANDBOX_VERSION, Profile
from tests.support.wasm import Runs, wat

T = TypeVar("T")

GOLDEN: Final = Path(__file__).resolve().parents[1] / "vectors" / "deterministic.json"
STDIN: Final = b"".join(b"%d: some input, and more of it\n" % number for number in range(6000))
"""More than one read of wasmtime's gives."""

_WASI: Final = {
    "proc_exit": "(param i32)",
    "fd_write": "(param i32 i32 i32 i32) (result i32)",
    "fd_read": "(param i32 i32 i32 i32) (result i32)",
    "fd_readdir": "(param i32 i32 i32 i64 i32) (result i32)",
    "poll_oneoff": "(param i32 i32 i32 i32) (result i32)",
    "clock_time_get": "(param i32 i64 i32) (result i32)",
    "random_get": "(param i32 i32) (result i32)",
    "fd_filestat_get": "(param i32 i32) (result i32)",
    "fd_fdstat_get": "(param i32 i32) (result i32)",
    "environ_get": "(param i32 i32) (result i32)",
}
OUT: Final = 65536
"""Where the programs below put what they have to say; what lies before is their own."""


def command(body: str, *, memory: str = "4", extra: str = "", more_imports: str = "") -> bytes:
    """A command with WASI's functions by name; ``$emit`` writes the bytes from OUT on, so many, to stdout."""
    imports = "\n".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {kind}))' for name, kind in _WASI.items()
    )
    return wat(f"""(module {imports} {more_imports} (memory (export "memory") {memory}) {extra}
      (func $emit (param $size i32)
        (i32.store (i32.const 0) (i32.const {OUT})) (i32.store (i32.const 4) (local.get $size))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
      (func (export "_start") {body}))""")


# Operands come from memory: what a compiler computes beforehand says nothing about the code that it makes.
_BITS32: Final = (0x7FC00123, 0xFFC00456, 0x7F800001, 0x3F800000, 0, 0x7F800000, 0xBF800000)
_BITS64: Final = (
    0x7FF8 << 48 | 0x123,
    0xFFF8 << 48 | 0x456,
    0x7FF0 << 48 | 1,
    0x3FF0 << 48,
    0,
    0x7FF0 << 48,
    0xBFF0 << 48,
)
_OPERANDS: Final = struct.pack("<7I4x7Q", *_BITS32, *_BITS64)
_AT32, _AT64 = 2048, 2080
_LOADS32: Final = [f"(f32.load (i32.const {_AT32 + 4 * n}))" for n in range(7)]
_LOADS64: Final = [f"(f64.load (i32.const {_AT64 + 8 * n}))" for n in range(7)]
NAN32, NAN64 = _LOADS32[:3], _LOADS64[:3]
"""Quiet with a payload, negative with one, and signalling."""


def _nan_operations() -> list[tuple[str, str]]:
    """Expressions whose value is a NaN of 32 or of 64 bits, which must be the canonical one."""
    found = []
    for kind, loads in (("f32", _LOADS32), ("f64", _LOADS64)):
        nans, (one, zero, inf, minus) = loads[:3], loads[3:]
        for nan in nans:
            found += [(kind, f"({kind}.{name} {nan} {one})") for name in ("add", "sub", "mul", "div", "min", "max")]
            found += [(kind, f"({kind}.{name} {one} {nan})") for name in ("add", "sub", "mul", "div", "min", "max")]
            found += [(kind, f"({kind}.{name} {nan})") for name in ("sqrt", "ceil", "floor", "trunc", "nearest")]
        found += [
            (kind, f"({kind}.div {zero} {zero})"),
            (kind, f"({kind}.sub {inf} {inf})"),
            (kind, f"({kind}.mul {zero} {inf})"),
            (kind, f"({kind}.sqrt {minus})"),
            (kind, f"({kind}.add {nans[0]} {nans[1]})"),
            (kind, f"({kind}.add {nans[1]} {nans[0]})"),
        ]
    found += [("f64", f"(f64.promote_f32 {nan})") for nan in NAN32]
    found += [("f32", f"(f32.demote_f64 {nan})") for nan in NAN64]
    for lanes, kind, loads in (("f32x4", "f32", _LOADS32), ("f64x2", "f64", _LOADS64)):
        for nan in loads[:3]:
            left, right = f"({lanes}.splat {nan})", f"({lanes}.splat {loads[3]})"
            for name in ("add", "sub", "mul", "div", "min", "max"):
                found.append((kind, f"({lanes}.extract_lane 1 ({lanes}.{name} {left} {right}))"))
            for name in ("sqrt", "ceil", "floor", "trunc", "nearest"):
                found.append((kind, f"({lanes}.extract_lane 1 ({lanes}.{name} {left}))"))
    found += [("f64", f"(f64x2.extract_lane 1 (f64x2.promote_low_f32x4 (f32x4.splat {nan})))") for nan in NAN32]
    found += [("f32", f"(f32x4.extract_lane 0 (f32x4.demote_f64x2_zero (f64x2.splat {nan})))") for nan in NAN64]
    return found


NAN_OPERATIONS: Final = _nan_operations()


def nans() -> bytes:
    """A program that writes the bits of each of NAN_OPERATIONS, 8 bytes for each."""
    stores = []
    for number, (kind, expression) in enumerate(NAN_OPERATIONS):
        bits = f"(i64.reinterpret_f64 {expression})"
        if kind == "f32":
            bits = f"(i64.extend_i32_u (i32.reinterpret_f32 {expression}))"
        stores.append(f"(i64.store (i32.const {OUT + 8 * number}) {bits})")
    data = "".join(f"\\{byte:02x}" for byte in _OPERANDS)
    return command(
        f"{' '.join(stores)} (call $emit (i32.const {8 * len(NAN_OPERATIONS)}))",
        extra=f'(data (i32.const {_AT32}) "{data}")',
    )


def simd() -> bytes:
    """Numbers through SIMD: multiplied, shuffled, saturated, converted; relaxed ones there are not."""
    return command(
        f"""(local $n i32) (local $sum v128) (local $float v128)
        (local.set $float (f32x4.splat (f32.const 1.0001)))
        (loop $next
          (local.set $sum (i32x4.add (i32x4.mul (local.get $sum) (i32x4.splat (i32.const 1664525)))
                                     (i32x4.splat (local.get $n))))
          (local.set $sum (i8x16.shuffle 3 1 2 0 7 5 6 4 11 9 10 8 15 13 14 12 (local.get $sum) (local.get $sum)))
          (local.set $float (f32x4.add (f32x4.mul (local.get $float) (f32x4.splat (f32.const 0.999)))
                                       (f32x4.sqrt (f32x4.convert_i32x4_u (local.get $sum)))))
          (local.set $sum (v128.xor (local.get $sum) (i16x8.q15mulr_sat_s (local.get $sum) (local.get $float))))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $n) (i32.const 20000))))
        (v128.store (i32.const {OUT}) (local.get $sum)) (v128.store (i32.const {OUT + 16}) (local.get $float))
        (call $emit (i32.const 32))"""
    )


def reads() -> bytes:
    """Reads standard input with two large buffers, and writes how much each read gave, and all of it."""
    return command(
        f"""(local $at i32)
        (i32.store (i32.const 16) (i32.const {OUT + 4})) (i32.store (i32.const 20) (i32.const 100000))
        (i32.store (i32.const 24) (i32.const {OUT + 100004})) (i32.store (i32.const 28) (i32.const 50000))
        (loop $next
          (drop (call $fd_read (i32.const 0) (i32.const 16) (i32.const 2) (i32.const {OUT})))
          (local.set $at (i32.load (i32.const {OUT})))
          (call $emit (i32.add (local.get $at) (i32.const 4)))
          (br_if $next (local.get $at)))"""
    )


def clocks() -> bytes:
    """Looks at both clocks, sleeps a day on each, looks again, and asks for random bytes in between."""
    looks, at = "", OUT
    for clock in (0, 1, 1, 0):
        looks += f"(drop (call $clock_time_get (i32.const {clock}) (i64.const 1) (i32.const {at})))"
        looks += f"(drop (call $random_get (i32.const {at + 8}) (i32.const 24)))"
        looks += f"""(i64.store (i32.const 256) (i64.const {clock})) (i32.store (i32.const 272) (i32.const {clock}))
          (i64.store (i32.const 280) (i64.const 86400000000000))
          (drop (call $poll_oneoff (i32.const 256) (i32.const {at + 32}) (i32.const 1) (i32.const 500)))"""
        at += 64
    return command(f"{looks} (call $emit (i32.const {at - OUT}))")


def stats() -> bytes:
    """What the first descriptors are said to be."""
    calls = "".join(
        f"(drop (call $fd_filestat_get (i32.const {fd}) (i32.const {OUT + 128 * fd})))"
        f"(drop (call $fd_fdstat_get (i32.const {fd}) (i32.const {OUT + 128 * fd + 64})))"
        for fd in range(6)
    )
    return command(f"{calls} (call $emit (i32.const 768))")


def lists() -> bytes:
    """Lists the first folder, in buffers that are too small for all of it."""
    return command(
        f"""(local $used i32) (local $cookie i64) (local $at i32) (local $next i32) (local $end i32)
        (loop $more
          (drop (call $fd_readdir (i32.const 3) (i32.const {OUT}) (i32.const 4096) (local.get $cookie) (i32.const 16)))
          (local.set $used (i32.load (i32.const 16)))
          (call $emit (local.get $used))
          (local.set $at (i32.const {OUT}))
          (local.set $end (i32.add (i32.const {OUT}) (local.get $used)))
          (block $out (loop $entry
            (br_if $out (i32.gt_u (i32.add (local.get $at) (i32.const 24)) (local.get $end)))
            (local.set $next (i32.add (local.get $at) (i32.add (i32.const 24) (i32.load offset=16 (local.get $at)))))
            (br_if $out (i32.gt_u (local.get $next) (local.get $end)))
            (local.set $cookie (i64.load (local.get $at)))
            (local.set $at (local.get $next))
            (br $entry)))
          (br_if $more (i32.eq (local.get $used) (i32.const 4096))))"""
    )


def lists_forever() -> bytes:
    """Lists the first folder again and again."""
    return command(
        f"""(loop $more
          (drop (call $fd_readdir (i32.const 3) (i32.const {OUT}) (i32.const 4096) (i64.const 0) (i32.const 16)))
          (br $more))"""
    )


GROWS: Final = """(local $size i32)
  (loop $more (local.set $size (memory.grow (i32.const 1)))
    (br_if $more (i32.ne (local.get $size) (i32.const -1))))
  (i32.store (i32.const 65536) (memory.size)) (call $emit (i32.const 4))"""
LOOPS: Final = """(local $n i64) (local $sum i64)
  (loop $more
    (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 6364136223846793005)) (local.get $n)))
    (local.set $n (i64.add (local.get $n) (i64.const 1)))
    (br_if $more (i64.lt_u (local.get $n) (i64.const 1000000))))
  (i64.store (i32.const 65536) (local.get $sum)) (call $emit (i32.const 8))"""
FIB: Final = """(func $fib (param $n i32) (result i32)
  (if (result i32) (i32.lt_u (local.get $n) (i32.const 2)) (then (local.get $n))
    (else (i32.add (call $fib (i32.sub (local.get $n) (i32.const 1)))
                   (call $fib (i32.sub (local.get $n) (i32.const 2)))))))"""

WORLD: Final = """
import datetime, hashlib, json, os, random, secrets, struct, sys, tempfile, time, uuid

print(hash("text"), list({"one", "two", "three", "four", "five"}), {b"x", b"y", b"z"}, id(object()))
print(random.random(), random.sample(range(1000), 5), secrets.token_hex(8), uuid.uuid4(), os.urandom(4).hex())
begun = time.monotonic()
time.sleep(3600)
print(time.time(), time.time_ns(), time.monotonic() - begun, time.perf_counter(), datetime.datetime.now())
print(sys.argv, dict(os.environ), os.getcwd())
sizes = []
while data := os.read(0, 100_000):
    sizes.append(len(data))
print(sizes, os.fstat(0), os.fstat(1))
order = list(range(300))
random.shuffle(order)
os.mkdir("/tmp/d")
for number in order:
    with open(f"/tmp/d/{number:0200d}", "w") as file:
        file.write("x" * number)
print(hashlib.sha256(json.dumps(os.listdir("/tmp/d")).encode()).hexdigest())
print([os.stat(path) for path in ("/in", "/in/main.py", "/tmp", "/tmp/d", f"/tmp/d/{7:0200d}")])
print([(entry.name[-3:], entry.is_dir(), entry.inode()) for entry in os.scandir("/tmp/d")][:5])
print(tempfile.mkstemp(), tempfile.mkdtemp())
print(struct.pack("<d", float("inf") - float("inf")).hex(), 0.1 + 0.2, sum(1 / n for n in range(1, 1000)))
kept = []
try:
    while True:
        kept.append(bytearray(1 << 20))
except MemoryError:
    print(len(kept))
"""
HELLO_PY: Final = 'print("hello")\n'
HELLO_JS: Final = 'console.log("hello");\n'
WORLD_JS: Final = """
const words = std.in.readAsString().split("\\n").slice(0, 5);
console.log(words.join("|"), Date.now(), new Date().toISOString(), Math.random(), Math.random());
console.log(JSON.stringify(scriptArgs), JSON.stringify(std.getenviron()));
console.log(os.readdir("/in").join(), os.stat("/in/main.js")[0].size, os.stat("/in/main.js")[0].mtime);
let seen = new Map(); for (let n = 0; n < 2000; n++) seen.set((n * 7919) % 2003, Math.sin(n));
console.log([...seen.entries()].sort((a, b) => a[1] - b[1]).slice(0, 3).join(), NaN, 0 / 0, Math.pow(2, 0.5));
os.sleep(100000); console.log(Date.now());
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A program as a job has it: a module, or source text in a language."""

    code: bytes | str
    language: str | None = None
    stdin: bytes = STDIN
    resources: dict[str, int] = field(default_factory=dict)
    args: tuple[str, ...] = ("one", "two")

    @property
    def digest(self) -> str:
        """SHA-256, hex, of all that goes into a run."""
        code = self.code if isinstance(self.code, bytes) else self.code.encode()
        told = json.dumps([self.language, self.args, sorted(self.resources.items())]).encode()
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (code, self.stdin, told))).hexdigest()


def programs() -> dict[str, Program]:
    """The programs whose fuel and output are committed."""
    hello = '(data (i32.const 65536) "hello\\n")'
    return {
        "empty": Program(command("")),
        "hello": Program(command("(call $emit (i32.const 6))", extra=hello)),
        "exit": Program(command("(call $emit (i32.const 6)) (call $proc_exit (i32.const 3))", extra=hello)),
        "trap": Program(command("(call $emit (i32.const 6)) unreachable", extra=hello)),
        "loop": Program(command(LOOPS)),
        "fib": Program(
            command("(i32.store (i32.const 65536) (call $fib (i32.const 20))) (call $emit (i32.const 4))", extra=FIB)
        ),
        "out of fuel": Program(
            command("(call $emit (i32.const 6)) (loop $l (br $l))", extra=hello), resources={"fuel": 100_000}
        ),
        "grow": Program(command(GROWS), resources={"memory_mib": 17}),
        "reads": Program(reads()),
        "clocks": Program(clocks()),
        "stats": Program(stats()),
        "nans": Program(nans()),
        "simd": Program(simd()),
        "hello.py": Program(HELLO_PY, "python"),
        "world.py": Program(WORLD, "python", resources={"memory_mib": 64}),
        "hello.js": Program(HELLO_JS, "javascript"),
        "world.js": Program(WORLD_JS, "javascript"),
    }


def through(runs: Runs, program: Program) -> dict[str, Any]:
    """What a deterministic job comes to in a worker: all that must be the same each time."""
    env = {"B": "2", "A": "1"}
    options: dict[str, Any] = {"profile": "deterministic", "args": list(program.args), "env": env, **program.resources}
    if isinstance(program.code, str):
        assert program.language is not None, "source text is in a language"
        lease = runs.lease({"code": program.code, "language": program.language}, **options)
        handle = runs.runner.start(lease, module=None, stdin=program.stdin)
    else:
        digest = hashlib.sha256(program.code).hexdigest()
        lease = runs.lease({"module": f"b1-{digest}"}, **options)
        handle = runs.runner.start(lease, module=program.code, stdin=program.stdin)
    outcome, stdout = runs.end(handle)
    runs.runner.reap(handle)
    return {
        "category": outcome.category.value,
        "exit_code": outcome.exit_code,
        "trap": outcome.trap,
        "fuel": outcome.usage.fuel,
        "memory": outcome.usage.memory_peak_bytes,
        "stdout": hashlib.sha256(stdout).hexdigest(),
        "version": outcome.runtime_version,
    }


def on_thread(task: Callable[[], T]) -> T:
    """Do something on a thread with a guest's stack."""
    found: list[T] = []
    before = threading.stack_size(8 << 20)
    try:
        thread = threading.Thread(target=lambda: found.append(task()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return found[0]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run a module in this process. ``stdin``: as a file, or from memory."""

    level: str | None = None
    stdin: str = "file"
    pooled: bool = True


def in_process(
    module: bytes,
    folder: Path,
    way: Way,
    *,
    stdin: bytes = STDIN,
    argv: tuple[str, ...] = ("module",),
    bounds: Bounds | None = None,
    inputs: tuple[tuple[str, bytes], ...] = (),
    seed: bytes = b"seed",
    stop_s: float | None = None,
) -> Report:
    """Run a module in this process, with folders made in ``folder``; ``inputs`` are made in this order.

    After ``stop_s`` it is stopped.
    """
    from hanzo_compute.adapters.sandbox.engine import Engine
    from hanzo_compute.adapters.sandbox.running import Loaded
    from hanzo_compute.adapters.sandbox.sandbox import Sandbox

    for name in ("in", "tmp"):
        (folder / name).mkdir()
    for name, data in inputs:
        (folder / "in" / name).write_bytes(data)
    (folder / "stdin").write_bytes(stdin)
    given: dict[str, Any] = {"stdin": stdin} if way.stdin == "memory" else {"stdin_path": str(folder / "stdin")}
    call = Call(
        argv=list(argv),
        env={"A": "1", "B": "2"},
        folders=[Folder(str(folder / "in"), "/in"), Folder(str(folder / "tmp"), "/tmp", writable=True)],
        bounds=bounds or Bounds(),
        deterministic=True,
        seed=seed,
        **given,
    )

    def run() -> Report:
        import wasmtime

        engine = Engine(Profile.METERED, level=way.level, pooled=way.pooled)
        artefact = engine.compile(module)
        loaded = Loaded.of(wasmtime.Module.deserialize(engine.engine, artefact))
        sandbox = Sandbox(engine)
        if stop_s is None:
            return sandbox.run(loaded, call)
        over = threading.Event()

        def stop() -> None:
            while not over.wait(stop_s):  # a stop that comes before the call is of no effect on it
                sandbox.stop()

        stopping = threading.Thread(target=stop)
        stopping.start()
        try:
            return sandbox.run(loaded, call)
        finally:
            over.set()
            stopping.join()

    return on_thread(run)


def golden() -> dict[str, Any]:
    """What is committed."""
    found: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Make what is committed anew, deliberately: with another SANDBOX_VERSION, or another wasmtime."""
    import tempfile

    from hanzo_compute.adapters.local.system import SystemClock
    from hanzo_compute.adapters.runner.wasm import WasmRunner
    from hanzo_compute.adapters.sandbox.settings import version
    from hanzo_compute.config import default_cache

    with tempfile.TemporaryDirectory() as folder:
        runner = WasmRunner(Path(folder), default_cache(os.environ), 1, SystemClock())
        ends = {
            name: {"program": program.digest, **through(Runs(runner), program)} for name, program in programs().items()
        }
        runner.close()
    told = {"made by": "python -m tests.support.steady", "engine": version(), "sandbox": SANDBOX_VERSION, "runs": ends}
    GOLDEN.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
