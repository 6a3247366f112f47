"""A request to a fresh instance: our sandbox, node, wasmtime-py's public API, extism, and a process that does nothing.

Method. The guest sums eight numbers, 64 bytes in and 8 out (examples/c/sum; for extism the same as a plugin, as its ABI
is another). Each way answers requests in a process of its own, one after the other, in turns round by round. All have
compiled the module before; a round before the first is not counted. Ours is the sandbox as a worker uses it, in the
process that asks: store, limits, deadline, instance, report. "Through a worker" adds the way to another process.

What differs. node and extism have no bound on memory or time here but what is built in or named to them; node runs the
instance in the process that asks and collects garbage later, which its p50 leaves out and its mean has. A reused
extism plugin is no fresh instance: it keeps what the last request left. /bin/true answers nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread
from tests.bench.wasm.modules import HERE, ROOT, guest, peers, wat

NAMES = {
    "ours": "ours, in the process that asks",
    "worker": "ours, through a worker",
    "node": "node's WebAssembly, fresh instance",
    "public": "wasmtime-py's public API",
    "public-pooled": "wasmtime-py's public API, with a pool",
    "extism": "extism, fresh plugin",
    "extism-reused": "extism, one plugin for all",
    "true": "a process for each: /bin/true",
}


def commands(work: Path) -> dict[str, list[str]]:
    """How each way is started."""
    module = str(guest("sum"))
    plugin = work / "plugin.wasm"
    plugin.write_bytes(wat((HERE / "sum_extism.wat").read_text()))
    found = {}
    for name in NAMES:
        path = str(plugin) if name.startswith("extism") else module
        found[name] = [sys.executable, "-m", "tests.bench.wasm.side", name, path]
    return found | {"node": ["node", str((HERE / "side.mjs").relative_to(ROOT)), module]}


def run(options: Options) -> Report:
    """The comparison."""
    count = options.size(2000, 5)
    p50: dict[str, list[float]] = {name: [] for name in NAMES}
    mean: dict[str, list[float]] = {name: [] for name in NAMES}
    p99: dict[str, list[float]] = {name: [] for name in NAMES}
    with peers(commands(options.work)) as sides:
        for number in range(options.rounds + 1):
            for name in list(NAMES) if number % 2 else list(reversed(NAMES)):
                took = sides[name].ask(max(5, count // 10) if name == "true" else count)
                if number:
                    p50[name].append(percentile(took, 0.5))
                    mean[name].append(sum(took) / len(took))
                    p99[name].append(percentile(took, 0.99))
    report = Report("64 bytes in, 8 out, a fresh instance", ["", "p50, µs", "mean, µs", "p99, µs", "p50, this / ours"])
    for name, title in NAMES.items():
        ratio = ratios(p50[name], p50["ours"]) if name != "ours" else None
        report.rows.append([title, spread(p50[name]), spread(mean[name]), spread(p99[name]), ratio])
    report.targets += [
        Target("p50, ours / node", ratios(p50["ours"], p50["node"]), 2),
        Target("p50, public API / ours", ratios(p50["public"], p50["ours"]), 4, at_most=False),
        Target("p50, extism's fresh plugin / ours", ratios(p50["extism"], p50["ours"]), 5, at_most=False),
        Target("p50, through a worker / /bin/true", ratios(p50["worker"], p50["true"]), 0.2),
    ]
    report.notes.append(f"mean, ours / node: {ratios(mean['ours'], mean['node'])}")
    return report
