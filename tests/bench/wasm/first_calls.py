"""The first calls of a Python function in a worker, and those after them.

Method. A pool of one worker, as a front has it, and functions that it has not seen; each is called in turn. The first
calls start the interpreter, one makes an image of it, and the others go on from that. Beside them a new process of
this machine's Python without its site (-SE) runs the same text.

What it does not show. The way there over HTTP.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Final

from hanzo_compute import config
from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.adapters.sandbox.worker import PLAIN_STARTS
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram
from tests.bench.options import Options
from tests.bench.report import Report, percentile, ratios, spread
from tests.bench.wasm.start import process, timed

PROGRAMS: Final = {
    "says hello": "print('hello')\n",
    "imports json, re and dataclasses": "import json, re, dataclasses\nprint('hello')\n",
}


def function(text: str, number: int) -> GuestProgram:
    """A function; another one for each number."""
    return GuestProgram(
        key=f"bench/{number}",
        entry="command",
        profile="fast",
        module=bytes,
        digest="",
        language="python",
        script="main.py",
        files=lambda: {"main.py": text.encode()},
        memory_mib=64,
    )


async def called(pool: Pool, program: GuestProgram) -> float:
    """Milliseconds of a call."""
    begun = time.perf_counter()
    found = await pool.call(GuestCall(program, "bench", b"", 60.0))
    taken = (time.perf_counter() - begun) * 1000
    assert (found.category, found.output) == ("ok", b"hello\n"), found
    return taken


async def rounds(options: Options, name: str, text: str) -> list[tuple[float, float, float, float]]:
    """Of each round: a plain start, the call that makes the image, one after that, and the process."""
    later = options.size(20, 1)
    found = []
    pool = Pool(options.folder(f"state-{len(text)}"), config.default_cache(os.environ), 1)
    try:
        await called(pool, function(text, -1))  # the worker, and the compiled module
        for number in range(options.rounds):
            options.say(f"round {number + 1}: {name}")
            program = function(text, number)
            plain = [await called(pool, program) for _ in range(PLAIN_STARTS)]
            making = await called(pool, program)
            after = [await called(pool, program) for _ in range(later)]
            native = [timed(process(sys.executable, "-SE", "-c", text)) for _ in range(later)]
            found.append((percentile(plain, 0.5), making, percentile(after, 0.5), percentile(native, 0.5)))
    finally:
        await pool.close()
    return found


def run(options: Options) -> Report:
    """Both programs."""
    report = Report(
        "Calls of a Python function that a worker has not seen",
        ["ms", "the first two", "the third", "later ones", "a process", "later / a process"],
    )
    for name, text in PROGRAMS.items():
        plain, making, after, native = zip(*asyncio.run(rounds(options, name, text)), strict=True)
        report.rows.append([name, *map(spread, (plain, making, after, native)), ratios(after, native)])
    return report
