"""``python -m tests.bench.wasm.side NAME FILE``: one way to answer a request, in a process of its own.

Reads a number from a line of standard input, answers so many requests one after the other, and prints how many µs each
took, as JSON. A request: 64 bytes in, 8 out, which are checked. Two copies of wasmtime in one process would share its
signal handlers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

REQUEST: Final = b"".join(number.to_bytes(8, "little") for number in range(1, 9))
RESPONSE: Final = (36).to_bytes(8, "little")
STACK: Final = 8 << 20
TIMEOUT_S: Final = 10.0

Answer = Callable[[], bytes]


def ours(path: str) -> Answer:
    """Our sandbox in this process, as a worker uses it: limits, a deadline, and a fresh instance for each request."""
    from hanzo_compute.adapters.sandbox.call import Call
    from hanzo_compute.adapters.sandbox.engine import Engine
    from hanzo_compute.adapters.sandbox.sandbox import Sandbox
    from hanzo_compute.adapters.sandbox.settings import Profile
    from tests.bench.wasm.modules import loaded

    engine = Engine(Profile.FAST)
    sandbox, module = Sandbox(engine), loaded(engine, Path(path).read_bytes())
    call = Call(entry="reactor")

    def watch() -> None:
        while True:
            time.sleep(0.005)
            engine.check()

    threading.Thread(target=watch, daemon=True).start()

    def answer() -> bytes:
        call.stdin, call.deadline = REQUEST, time.monotonic() + TIMEOUT_S
        return sandbox.run(module, call).output

    return answer


def worker(path: str) -> Answer:
    """Through a worker process of ours."""
    from tests.bench.wasm.modules import Work

    work = Work(Path(tempfile.mkdtemp(prefix="hzc-bench-cache-")))
    process, number = work.ready(Path(path).read_bytes(), {"entry": "reactor"})

    def answer() -> bytes:
        answered = process.call(number, REQUEST, TIMEOUT_S)
        assert answered is not None
        assert answered.report is not None
        return answered.report.output

    return answer


def public(path: str, *, pooled: bool = False) -> Answer:
    """wasmtime-py's public API, with the same limits and the same engine settings, pooled or not."""
    import wasmtime

    from hanzo_compute.adapters.sandbox.engine import Engine
    from hanzo_compute.adapters.sandbox.settings import Profile

    engine = Engine(Profile.FAST, pooled=pooled)
    module = wasmtime.Module(engine.engine, Path(path).read_bytes())

    def answer() -> bytes:
        store = wasmtime.Store(engine.engine)
        store.set_limits(256 << 20, 1_000_000, 4, 8, 3)
        store.set_epoch_deadline(1)
        exports = wasmtime.Instance(store, module, []).exports(store)
        memory: Any = exports["memory"]
        alloc: Any = exports["alloc"]
        handle: Any = exports["handle"]
        at = alloc(store, len(REQUEST))
        memory.write(store, REQUEST, at)
        packed = handle(store, at, len(REQUEST))
        at = packed >> 32 & 0xFFFFFFFF
        found = bytes(memory.read(store, at, at + (packed & 0xFFFFFFFF)))
        store.close()
        return found

    return answer


def extism_fresh(path: str) -> Answer:
    """A new extism plugin for each request, from a module compiled once."""
    from extism import extism

    compiled = extism.CompiledPlugin(_manifest(path), wasi=False)
    return lambda: bytes(extism.Plugin(compiled).call("sum", REQUEST))


def extism_reused(path: str) -> Answer:
    """One extism plugin for all requests: what one leaves behind, the next finds."""
    from extism import extism

    plugin = extism.Plugin(_manifest(path), wasi=False)
    return lambda: bytes(plugin.call("sum", REQUEST))


def process(_: str) -> Answer:
    """A process for each request, which does nothing."""

    def answer() -> bytes:
        subprocess.run(["/bin/true"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return RESPONSE

    return answer


SIDES: Final[dict[str, Callable[[str], Answer]]] = {
    "ours": ours,
    "worker": worker,
    "public": public,
    "public-pooled": lambda path: public(path, pooled=True),
    "extism": extism_fresh,
    "extism-reused": extism_reused,
    "true": process,
}


def _manifest(path: str) -> dict[str, Any]:
    return {"wasm": [{"data": Path(path).read_bytes()}], "memory": {"max_pages": 4096}, "timeout_ms": 10_000}


def serve(answer: Answer) -> None:
    """Until standard input ends."""
    now = time.perf_counter_ns
    for line in sys.stdin:
        took = []
        for _ in range(int(line)):
            begin = now()
            found = answer()
            took.append((now() - begin) / 1000)
            assert found == RESPONSE, found
        print(json.dumps(took), flush=True)


def main() -> None:
    """Serve as the side that is named."""
    name, path = sys.argv[1:]
    threading.stack_size(STACK)
    thread = threading.Thread(target=lambda: serve(SIDES[name](path)))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
