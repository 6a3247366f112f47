"""``python -m tests.bench``: the benchmarks, as a table and as ``bench.json``. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import document, machine
from tests.bench.options import Options
from tests.bench.report import Report, number

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BENCHMARKS = ("post", "get", "writer", "jobs", "peer", "durability", "store", "receipts", "invoke", "attest")
"""Modules of this package, in the order in which they run."""
WASM = tuple(
    f"wasm.{name}" for name in ("request", "worker", "loading", "ending", "bulk", "compute", "start", "first_calls")
)
"""… and those of the sandbox, after them; ``--only wasm`` names them all."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    known = [*BENCHMARKS, *WASM]
    parser.add_argument("--only", help=f"some of {','.join(known)}, or wasm", default=",".join(known))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of each comparison")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--json", type=Path, default=ROOT / "bench.json", help="where the figures go")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args(argv)
    options.names = [name for each in options.only.split(",") for name in (WASM if each == "wasm" else (each,))]
    unknown = [name for name in options.names if name not in known]
    if unknown or options.rounds < 1:
        parser.error(f"no benchmark of this name: {unknown}" if unknown else "--rounds must be 1 or more")
    return options


def say(line: str) -> None:
    """Progress goes to standard error: the table alone is on standard output."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


def run(name: str, options: argparse.Namespace) -> tuple[Report, dict[str, Any]]:
    """One benchmark in a folder of its own; prints its table, returns it and what was measured around it."""
    with tempfile.TemporaryDirectory(prefix=f"hzc-bench-{name}-", dir=ROOT / ".cache") as folder:
        work = Path(folder)
        sampled_s = 0.05 if options.smoke else 1.0
        syncs, before = machine.syncs_per_second(work, sampled_s), machine.load_average()
        begun = time.monotonic()
        module = importlib.import_module(f"tests.bench.{name}")
        report: Report = module.run(Options(work, options.rounds, options.smoke, say))
        seconds, after = time.monotonic() - begun, machine.load_average()
        rates = [syncs, machine.syncs_per_second(work, sampled_s)]
    disk = " and ".join(number(each) for each in rates)
    report.notes.append(f"{seconds:.0f} s; before and after: {disk} fdatasync/s, load average {before} and {after}")
    print(f"\n{report.markdown()}", flush=True)
    around = {"fdatasync_per_s": rates, "load_average": [before, after], "seconds": round(seconds, 1)}
    return report, around


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for."""
    options = parse(argv)
    (ROOT / ".cache").mkdir(exist_ok=True)
    about = machine.description()
    tables = {"machine": "\n".join(f"- {name}: {value}" for name, value in about.items())}
    print(tables["machine"], flush=True)
    found = {"machine": about, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "rounds": options.rounds}
    found["benchmarks"] = results = {}
    for name in options.names:
        say(f"{name} begins")
        report, around = run(name, options)
        tables[name] = report.markdown()
        results[name] = report.as_json() | {"around": around}
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        if options.docs:
            DOCUMENT.write_text(document.filled(DOCUMENT.read_text(), tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
