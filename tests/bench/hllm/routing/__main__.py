"""The routing experiment: `tune` (writes settings.json), then `run` (fresh seeds), then `report`; `check`; `curiosity`.

    python -m tests.bench.hllm.routing tune [WORLD ...]
    python -m tests.bench.hllm.routing run [WORLD ...]
    python -m tests.bench.hllm.routing report
    python -m tests.bench.hllm.routing check     the shipped router beside its vectorised form
    python -m tests.bench.hllm.routing curiosity whether the information term earns its place

Tuning: seeds 0-5. Reported: 20 seeds from 1000, with the settings of settings.json, which was committed before.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from tests.bench.hllm.peers import ROOT
from tests.bench.hllm.routing import check, curiosity, entrants, report, warm, worlds

HERE = Path(__file__).parent
WORLDS = ("easy", "hard", "regimes", "interaction", "drift", "load", "alibaba")
ABLATED = ("easy", "hard", "interaction")
TUNING, FRESH = tuple(range(6)), tuple(range(1000, 1020))
STEPS_TUNING, STEPS = 2000, 3000
RESULTS = ROOT / ".cache" / "routing" / "results"


def _names():
    return (*entrants.BARE, *entrants.GIVEN, "hllm")


def tune(world_name, seeds=TUNING, steps=STEPS_TUNING):
    """The best of the six settings of each entrant by mean regret, with all six means."""
    world = worlds.make(world_name, seeds, steps)
    beliefs = warm.beliefs(world)
    out = {}
    for name in _names():
        some = entrants.grid(name)
        regret = np.zeros(len(some))
        for at in entrants.groups(name, some):
            agent = entrants.make(name, seeds, [some[i] for i in at], 1, world, beliefs)
            regret[at] = worlds.run(world, agent, len(at))["regret"].reshape(len(seeds), len(at)).mean(0)
        best = int(regret.argmin())
        out[name] = {"setting": some[best], "regrets": [round(float(x), 1) for x in regret]}
        print(f"{world_name:12s} {name:18s} {out[name]}", flush=True)
    return out


def play(world_name, settings, seeds=FRESH, steps=STEPS):
    """Per-seed results of every entrant and ablation."""
    world = worlds.make(world_name, seeds, steps)
    beliefs = warm.beliefs(world)
    out = {}
    for name in (*_names(), *(entrants.ABLATIONS if world_name in ABLATED else entrants.ABLATIONS[:1])):
        setting = settings["hllm" if name.startswith("hllm") else name]["setting"]
        if name == "hllm default":
            if setting == entrants.DEFAULT:
                out[name] = out["hllm"]
                continue
            setting = entrants.DEFAULT
        began = time.process_time()
        agent = entrants.make(name, seeds, [setting], 2, world, beliefs)
        result = worlds.run(world, agent)
        out[name] = {k: [float(x) for x in v] for k, v in result.items()}
        seconds = time.process_time() - began
        print(f"{world_name:12s} {name:30s} {np.mean(result['regret']):8.1f}  {seconds:.0f} s", flush=True)
    return {"world": world_name, "seeds": list(seeds), "steps": steps, "results": out}


def main(arguments):
    command, names = (arguments or ["report"])[0], arguments[1:] or WORLDS
    path = HERE / "settings.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    if command == "tune":
        for name in names:
            found = tune(name)
            # Two processes may tune at a time: read again before writing.
            settings = json.loads(path.read_text()) if path.exists() else {}
            settings[name] = found
            path.write_text(json.dumps({k: settings[k] for k in sorted(settings)}, indent=1) + "\n")
    elif command == "run":
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name in names:
            (RESULTS / f"{name}.json").write_text(json.dumps(play(name, settings[name])))
    elif command == "report":
        report.show(
            [json.loads((RESULTS / f"{n}.json").read_text()) for n in names if (RESULTS / f"{n}.json").exists()]
        )
    elif command == "check":
        check.main()
    elif command == "curiosity":
        curiosity.main(settings)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
