"""A module of more than a megabyte that was compiled before, against compiling it.

Method. QuickJS (1.4 MB). Compiling is wasmtime's own in this process, with all cores: what is compared with; what a
platform does the first time is a process of its own, with its start. Warm, a worker that has not seen the module gets
it: "first" in a supervisor that has not either (the artefact is read, checked by its HMAC and sealed), "again" with the
sealed copy that is kept open. Both end when the worker has said that it is ready.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hanzo_compute import config
from hanzo_compute.adapters.sandbox import interpreters
from hanzo_compute.adapters.sandbox.artefacts import Artefacts
from hanzo_compute.adapters.sandbox.engine import Engine
from hanzo_compute.adapters.sandbox.process import Template, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile, tag
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread

LANGUAGE = "javascript"


def run(options: Options) -> Report:
    """Compiling and loading."""
    interpreter = interpreters.ensure(LANGUAGE, config.default_cache(os.environ), options.say)
    wasm = interpreter.path.read_bytes()
    repeats = options.size(30, 2)
    found: dict[str, list[float]] = {}
    worker, numbers = WorkerProcess(), itertools.count()
    try:
        for number in range(options.rounds):
            for name, value in measured(worker, wasm, options.folder(f"cache-{number}"), numbers, repeats).items():
                found.setdefault(name, []).append(value)
    finally:
        worker.kill()
    report = Report(f"A module of {len(wasm) / 1e6:.1f} MB: loaded and compiled", ["", "ms", "compiling / this"])
    for name, title in (
        ("compile", "compiled by wasmtime in this process"),
        ("process", "compiled by a process of its own, checked, stored and sealed"),
        ("first", "loaded into a worker, first in a supervisor: with the HMAC"),
        ("again", "loaded into a worker, kept open by its supervisor"),
    ):
        report.rows.append([title, spread(found[name]), ratios(found["compile"], found[name])])
    report.targets += [
        Target("compiling / loading, kept open", ratios(found["compile"], found["again"]), 500, at_most=False),
        Target("compiling / loading, with the HMAC", ratios(found["compile"], found["first"]), 500, at_most=False),
    ]
    return report


def measured(worker: WorkerProcess, wasm: bytes, cache: Path, numbers: Iterator[int], repeats: int) -> dict[str, float]:
    """Milliseconds of each, once."""
    digest = hashlib.sha256(wasm).hexdigest()
    engine, artefacts = Engine(Profile.FAST, pooled=False), Artefacts(cache, "fast", tag(Profile.FAST))
    found = {"compile": timed(lambda: engine.compile(wasm))}
    found["process"] = timed(lambda: os.close(artefacts.get(digest, lambda: wasm, timeout_s=300)))
    again = [timed(lambda: load(worker, artefacts, digest, next(numbers))) for _ in range(repeats)]

    def fresh() -> None:
        other = Artefacts(cache, "fast", tag(Profile.FAST))
        load(worker, other, digest, next(numbers))
        other.close()

    first = [timed(fresh) for _ in range(repeats)]
    artefacts.close()
    return found | {"again": percentile(again, 0.5), "first": percentile(first, 0.5)}


def load(worker: WorkerProcess, artefacts: Artefacts, digest: str, number: int) -> None:
    """Give a worker a module under a name that it does not know."""

    def compiled() -> bytes:
        raise AssertionError("it was compiled before")

    template = Template(f"{artefacts.name(digest)}-{number}", "fast", {"entry": "command"})
    worker.prepare(template, lambda: artefacts.get(digest, compiled))


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that something takes."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000
