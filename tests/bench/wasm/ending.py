"""How long after its deadline a guest has ended: one that computes, one that sleeps, one that waits for its host.

Method. Each has 30 ms; counted is from that moment to the supervisor's answer. The guest that waits asks for a key of
a service that never answers. The peer is wasmtime-py's public API with epochs, in a process of its own, whose ticker
looks every 5 ms as our workers do: it ends what computes, and has to wait for a sleep and a host call (of 300 ms here).

What it does not show. What a supervisor does with a worker that does not answer at all: it kills the process a
quarter of a second after the deadline.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from hanzo_compute.adapters.sandbox.process import WorkerProcess
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread
from tests.bench.wasm.modules import peers, wat, working

TIMEOUT_S: Final = 0.03
SLEEP_S: Final = 0.3
BODIES: Final = {
    "computes": "(loop $again (br $again))",
    "sleeps": f"(i64.store (i32.const 24) (i64.const {round(SLEEP_S * 1e9)}))"
    "(drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))",
    "waits": "(loop $again (drop (call $get (i32.const 0) (i32.const 1) (i32.const 8))) (br $again))",
}
POLL: Final = '(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))'
GET: Final = '(import "hzc" "kv_get" (func $get (param i32 i32 i32) (result i64)))'


def module(name: str) -> bytes:
    """A command that goes on for longer than its time."""
    imports = {"sleeps": POLL, "waits": GET}.get(name, "")
    return wat(f'(module {imports} (memory (export "memory") 1) (func (export "_start") {BODIES[name]}))')


class NotNow(Exception):
    """What the service says instead of an answer."""


class Silent:
    """A service that leaves its askers waiting."""

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        raise NotNow(name)


def late(worker: WorkerProcess, template: int) -> float:
    """Milliseconds from the deadline to the answer."""
    due = time.monotonic() + TIMEOUT_S
    try:
        answered = worker.call(template, b"", TIMEOUT_S)
    except NotNow:
        answered = worker.wait(due + 5)
    ended = time.monotonic()
    assert answered is not None
    assert answered.report is not None
    assert answered.report.trap == "interrupt", answered.report
    return (ended - due) * 1000


def run(options: Options) -> Report:
    """All three, ours and theirs."""
    count = options.size(50, 2)
    found: dict[tuple[str, str], list[float]] = {}
    command = [sys.executable, "-m", "tests.bench.wasm.ending"]
    with working(options.folder("cache")) as work, peers({"public": command}) as sides:
        ours = {}
        for name in BODIES:
            granted = frozenset({"kv"}) if name == "waits" else frozenset()
            ours[name] = work.ready(module(name), {"entry": "command"}, service=Silent(), granted=granted)
        for number in range(options.rounds):
            for name, pair in ours.items():
                options.say(f"round {number + 1}: {name}")
                took = [late(*pair) for _ in range(count)]
                theirs = sides["public"].ask(f"{name} {count if name == 'computes' else max(1, count // 10)}")
                for what, value in (("p50", 0.5), ("most", 1.0)):
                    found.setdefault((name, what), []).append(percentile(took, value))
                    found.setdefault((name, f"peer {what}"), []).append(percentile(theirs, value))
    report = Report(
        "From the deadline to the end of a guest, ms",
        ["", "p50", f"most of {count}", "public API, p50", "public API, most", "p50, ours / public API"],
    )
    for name in BODIES:
        columns = [found[name, what] for what in ("p50", "most", "peer p50", "peer most")]
        report.rows.append([f"it {name}", *map(spread, columns), ratios(columns[0], columns[2])])
    for name, bound in (("computes", 20), ("sleeps", 100), ("waits", 100)):
        report.targets.append(Target(f"most of {count}, it {name}", spread(found[name, "most"]), bound))
    return report


def main() -> None:
    """The peer: ``NAME COUNT`` a line in, milliseconds of lateness out."""
    import json
    import threading

    import wasmtime

    config = wasmtime.Config()
    config.epoch_interruption = True
    engine = wasmtime.Engine(config)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    kind = wasmtime.FuncType([wasmtime.ValType.i32()] * 3, [wasmtime.ValType.i64()])

    def get(*_: int) -> int:
        time.sleep(SLEEP_S)
        return -1

    linker.define_func("hzc", "kv_get", kind, get)
    modules = {name: wasmtime.Module(engine, module(name)) for name in BODIES}
    due = [float("inf")]

    def tick() -> None:
        while True:
            time.sleep(0.005)
            if time.monotonic() >= due[0]:
                engine.increment_epoch()

    threading.Thread(target=tick, daemon=True).start()
    for line in sys.stdin:
        name, count = line.split()
        took = []
        for _ in range(int(count)):
            store = wasmtime.Store(engine)
            store.set_wasi(wasmtime.WasiConfig())
            store.set_epoch_deadline(1)
            start: Any = linker.instantiate(store, modules[name]).exports(store)["_start"]
            due[0] = time.monotonic() + TIMEOUT_S
            ended = _ended(lambda start=start, store=store: start(store))
            took.append((ended - due[0]) * 1000)
            due[0] = float("inf")
            store.close()
        print(json.dumps(took), flush=True)


def _ended(work: Callable[[], object]) -> float:
    import wasmtime

    with suppress(wasmtime.Trap):
        work()
    return time.monotonic()


if __name__ == "__main__":
    main()
