"""``python -m tests.bench.hllm.imports``: how long the engine's import takes beside numpy's own.

Each import has a process of its own, in turns; CPU time of the import statement alone, compiled files at hand: in a
folder of their own, as the environment may forbid to write them beside the sources, and then each import compiles.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import statistics
import subprocess
import sys
import tempfile

import hllm

TIMED = "import time; began = time.process_time(); import {modules}; print(time.process_time() - began)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hllm.imports")
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    # What compiles or runs something is no part of a handler's import.
    names = [each.name for each in pkgutil.walk_packages(hllm.__path__, "hllm.") if not each.name.endswith(".build")]
    cases = {"numpy": "numpy", "hllm.router": "hllm.router", "all of hllm": ", ".join(names)}
    taken: dict[str, list[float]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as compiled:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = compiled
        for number in range(rounds + 1):
            for name, modules in cases.items():
                command = [sys.executable, "-c", TIMED.format(modules=modules)]
                seconds = float(subprocess.check_output(command, env=env))
                if number:  # the first round writes compiled files
                    taken[name].append(seconds)
    best = {name: statistics.median(values) for name, values in taken.items()}
    print("| import | CPU time, ms | beside numpy |\n| --- | ---: | ---: |")
    for name, seconds in best.items():
        print(f"| {name} | {seconds * 1e3:.0f} | {seconds / best['numpy']:.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
