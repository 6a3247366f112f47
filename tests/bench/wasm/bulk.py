"""A megabyte in and the same out, against three copies of it.

Method. The guest hands back the request where it lies, so what is measured is the way there and back. The fixed cost is
that of 64 bytes in the same round, and is taken off; a copy is `memmove` of the same size. In the process that asks,
the bytes go in and come out by one copy each; through a worker they are copied into and out of memory that both share
besides, twice. That what comes back is what was sent is looked at between the measurements.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

from hanzo_compute.adapters.sandbox.call import Bounds, Call
from hanzo_compute.adapters.sandbox.engine import Engine
from hanzo_compute.adapters.sandbox.sandbox import Sandbox
from hanzo_compute.adapters.sandbox.settings import Profile
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread
from tests.bench.wasm.modules import loaded, on_guest_stack, wat, working

SIZE = 1 << 20
ECHO = """(module (memory (export "memory") 20)
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "handle") (param $at i32) (param $size i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $size)))))"""


def run(options: Options) -> Report:
    """Both ways."""
    found: dict[str, list[float]] = on_guest_stack(lambda: measured(options))
    report = Report("1 MiB in and out, µs", ["", "1 MiB", "64 bytes", "3 copies", "(1 MiB - 64 bytes) / 3 copies"])
    for name, title in (("here", "in the process that asks"), ("worker", "through a worker")):
        columns = [found[name], found[f"{name}, small"], found["copies"]]
        above = [a - b for a, b in zip(columns[0], columns[1], strict=True)]
        ratio = ratios(above, columns[2])
        report.rows.append([title, *map(spread, columns), ratio])
        report.targets.append(Target(f"beyond the fixed cost, {title} / 3 copies", ratio, 1))
    return report


def measured(options: Options) -> dict[str, list[float]]:
    """p50 of each, for each round."""
    count, data = options.size(100, 3), bytes(range(256)) * (SIZE // 256)
    wasm, engine = wat(ECHO), Engine(Profile.FAST)
    sandbox, module = Sandbox(engine), loaded(engine, wasm)
    call = Call(entry="reactor", bounds=Bounds())
    into, out = ctypes.create_string_buffer(SIZE), ctypes.create_string_buffer(data, SIZE)
    found: dict[str, list[float]] = {}

    def here(request: bytes) -> bytes:
        call.stdin = request
        return sandbox.run(module, call).output

    def copies(_: bytes) -> bytes:
        for _ in range(3):
            ctypes.memmove(into, out, SIZE)
        return data

    with working(options.folder("cache")) as work:
        worker, template = work.ready(wasm, {"entry": "reactor"})

        def through(request: bytes) -> bytes:
            answered = worker.call(template, request, 10)
            assert answered is not None
            assert answered.report is not None
            return answered.report.output

        for number in range(options.rounds + 1):
            for name, way, request in (
                ("here", here, data),
                ("here, small", here, data[:64]),
                ("worker", through, data),
                ("worker, small", through, data[:64]),
                ("copies", copies, data),
            ):
                value = p50(way, request, count)
                if number:
                    found.setdefault(name, []).append(value)
    return found


def p50(way: Callable[[bytes], bytes], request: bytes, count: int) -> float:
    """µs."""
    took = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        found = way(request)
        took.append((time.perf_counter_ns() - begun) / 1000)
        assert found == request
    return percentile(took, 0.5)
