"""Code that computes: our two profiles, native C, and node.

Method. `compute.c` by the C compiler with -O2 and as WebAssembly by clang with -O2: recursive Fibonacci (calls),
SHA-256 (integers), and a logistic map (floating point, with a chain of dependencies). Each runs in turns, round by
round; the least of three is a round's figure. Results are compared: the profiles, C and node give the same.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import time
from collections.abc import Callable

from hanzo_compute.adapters.sandbox.call import Call
from hanzo_compute.adapters.sandbox.engine import Engine
from hanzo_compute.adapters.sandbox.sandbox import Sandbox
from hanzo_compute.adapters.sandbox.settings import Profile
from tests.bench.options import Options
from tests.bench.report import Report, ratios, spread
from tests.bench.wasm.modules import HERE, ROOT, Peer, loaded, on_guest_stack, peers

Timed = Callable[[int, int], tuple[float, int]]
"""Kind and size in; milliseconds and the result out."""
TRIES = 3


def native(options: Options) -> Timed:
    """By the C compiler."""
    target = options.work / "compute.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(target), str(HERE / "compute.c")], check=True)
    compute = ctypes.CDLL(str(target)).compute
    compute.argtypes, compute.restype = [ctypes.c_uint32, ctypes.c_uint32], ctypes.c_uint64

    def timed(kind: int, size: int) -> tuple[float, int]:
        begun = time.perf_counter()
        result = compute(kind, size)
        return (time.perf_counter() - begun) * 1000, result

    return timed


def ours(wasm: bytes, profile: Profile) -> Timed:
    """In a sandbox."""
    engine = Engine(profile)
    sandbox, module = Sandbox(engine), loaded(engine, wasm)

    def timed(kind: int, size: int) -> tuple[float, int]:
        call = Call(entry="reactor", stdin=struct.pack("<II", kind, size))
        begun = time.perf_counter()
        report = sandbox.run(module, call)
        return (time.perf_counter() - begun) * 1000, int.from_bytes(report.output, "little")

    return timed


def node(peer: Peer) -> Timed:
    """On node."""

    def timed(kind: int, size: int) -> tuple[float, int]:
        took, result = peer.ask(f"{kind} {size}")
        return float(took), int(result)

    return timed


def run(options: Options) -> Report:
    """All of them."""
    target = options.work / "compute.wasm"
    flags = ["--target=wasm32", "-O2", "-nostdlib", "-ffreestanding", "-fno-builtin", "-Wl,--no-entry"]
    subprocess.run(["clang", *flags, "-o", str(target), str(HERE / "compute.c")], check=True)
    wasm = target.read_bytes()
    sizes = {
        "fib({})": (0, options.size(30, 10)),
        "SHA-256 of {} KiB": (1, options.size(2048, 2)),
        "{} steps of floating point": (2, options.size(5_000_000, 100)),
    }
    found: dict[tuple[str, str], list[float]] = {}

    def measure() -> None:
        with peers({"node": ["node", str((HERE / "compute.mjs").relative_to(ROOT)), str(target)]}) as sides:
            ways = {
                "fast": ours(wasm, Profile.FAST),
                "metered": ours(wasm, Profile.METERED),
                "C": native(options),
                "node": node(sides["node"]),
            }
            for number in range(options.rounds + 1):
                for title, (kind, size) in sizes.items():
                    results = {name: [way(kind, size) for _ in range(TRIES)] for name, way in ways.items()}
                    assert len({result for tries in results.values() for _, result in tries}) == 1, results
                    for name, tries in results.items():
                        if number:
                            found.setdefault((title, name), []).append(min(took for took, _ in tries))

    on_guest_stack(measure)
    report = Report(
        "Code that computes",
        ["ms", "C, -O2", "fast", "metered", "node", "fast / C", "metered / C", "fast / node", "metered / node"],
    )
    for title, (_, size) in sizes.items():
        each = {name: found[title, name] for name in ("C", "fast", "metered", "node")}
        quotients = [ratios(each[a], each[b]) for b in ("C", "node") for a in ("fast", "metered")]
        report.rows.append([title.format(f"{size:,}"), *map(spread, each.values()), *quotients])
    return report
