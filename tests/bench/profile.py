"""``python -m tests.bench.profile``: where the CPU of a job's way goes, as a flame graph of all processes.

Method. The platform carries 1,000 small WASM jobs as in `jobs.py`, while py-spy samples the Python stacks of front,
writer, pump, agent and workers 200 times a second and keeps those that were on a CPU. They are merged by function into
one picture: a row for each process above the root, as wide as its share of all samples. It also prints the functions in
which most of each process's time was spent, with what they called.

What it does not show. What C code does: SQLite, pydantic, uvloop and system calls count for the Python function that
called them, and a short wait may be taken for work. Sampling pauses a process for a moment, so shares are good and
times are not; those are in `jobs.py`.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import flame, jobs
from tests.support.live import Platform, until

ROOT = Path(__file__).resolve().parents[2]
RATE = 200
TOP = 12
LOOP = 0.9
"""What has more than this share of a process is its main loop, and says nothing."""
Stacks = Counter[tuple[str, ...]]


@contextmanager
def sampled(platform: Platform, folder: Path) -> Iterator[None]:
    """Sample every process of the platform; the files are there at the end, named as the process is."""
    spies = []
    for name in jobs.PROCESSES:
        target = ["--pid", str(platform.pid(name)), "--output", str(folder / name)]
        options = ["--rate", str(RATE), "--duration", "600", "--format", "raw", "--function", "--subprocesses"]
        command = [str(Path(sys.executable).with_name("py-spy")), "record", *target, *options]
        with (folder / "py-spy.log").open("ab") as log:
            spies.append(subprocess.Popen(command, stdout=log, stderr=log))
    try:
        yield
    finally:
        for spy in spies:
            spy.send_signal(signal.SIGINT)
        for spy in spies:
            spy.wait(60)


def read(path: Path) -> Stacks:
    """The stacks of one of py-spy's files, each under the name of its process."""
    found: Stacks = Counter()
    for line in path.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if not frame.startswith("process ")]
        worker = any("wasm/worker.py" in frame for frame in frames)
        found["workers" if worker else path.name, *map(named, frames)] += int(samples)
    return found


def named(frame: str) -> str:
    """``function (package/module.py)``: without the folder in which the package is installed."""
    return re.sub(r"\(.*(?:/src/|/site-packages/|/lib/python3\.\d+/|/functions/)", "(", frame)


def top(stacks: Stacks) -> list[str]:
    """For each process the functions of the platform and of packages with the most samples on or below them."""
    lines = []
    total = sum(stacks.values())
    for process in dict.fromkeys(stack[0] for stack in stacks):
        mine = {stack: samples for stack, samples in stacks.items() if stack[0] == process}
        size = sum(mine.values())
        lines.append(f"{process}: {size / total:.0%} of all samples")
        inclusive: Counter[str] = Counter()
        for stack, samples in mine.items():
            inclusive.update(dict.fromkeys(stack[1:], samples))
        below = [(name, samples) for name, samples in inclusive.most_common() if samples < size * LOOP]
        lines += [f"  {samples / size:5.1%}  {name}" for name, samples in below[:TOP]]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "flamegraph.svg")
    parser.add_argument("--jobs", type=int, default=1000)
    options = parser.parse_args()
    (ROOT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        samples = Path(folder) / "samples"
        samples.mkdir()
        with jobs.warm_platform(Path(folder) / "home") as (platform, module), sampled(platform, samples):
            jobs.submit(platform, module, options.jobs)
            until(lambda: jobs.at_rest(platform), 600, "all jobs are at rest")
        stacks: Stacks = Counter()
        for name in jobs.PROCESSES:
            stacks += read(samples / name)
    print("\n".join(top(stacks)))
    options.output.write_text(flame.svg(flame.tree(f"{options.jobs:,} small WASM jobs", stacks)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
