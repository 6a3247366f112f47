"""Records the tape that `hzc bench routing` plays: 300 requests of the world `easy`, seed 77, after its warm-up.

python -m tests.bench.hllm.routing.record FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from scipy.special import ndtri

from hllm.router import RouterSettings
from tests.bench.hllm.routing import warm, worlds

MODELS, BACKENDS = ("mixtral-8x7b", "gpt-4-1106"), ("shared", "reserved", "dedicated")
STEPS, SEED = 300, 77


def lines():
    world = worlds.make("easy", [SEED], STEPS)
    state = warm.start(world.warm_evidence[:, 0], world.warm_telemetry[:, 0], RouterSettings())
    yield {
        "format": "hzc.routing-tape/1",
        "value": worlds.VALUE,
        "miss_cost": worlds.MISS,
        "slo_s": 1.0,
        "state": state.to_dict(),
    }
    for t in range(STEPS):
        latency = np.exp(worlds.SPREAD * (world.normal[t, 0] - ndtri(world.met[t, 0])))
        yield {
            "evidence": [round(float(x), 4) for x in world.evidence[t, 0]],
            "telemetry": [round(float(x), 4) for x in world.telemetry[t, 0]],
            "candidates": [
                {
                    "name": f"{MODELS[worlds.MODEL_OF[a]]}@{BACKENDS[worlds.BACKEND_OF[a]]}",
                    "backend": BACKENDS[worlds.BACKEND_OF[a]],
                    "model": MODELS[worlds.MODEL_OF[a]],
                    "price": round(float(world.price[t, 0, a]), 5),
                    "ok": int(world.uniform[t, 0] < world.ok[t, 0, a]),
                    "latency_s": round(float(latency[a]), 4),
                    "p_ok": round(float(world.ok[t, 0, a]), 4),
                    "p_met": round(float(world.met[t, 0, a]), 4),
                }
                for a in range(worlds.ARMS)
            ],
        }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("".join(json.dumps(x, separators=(",", ":")) + "\n" for x in lines()))
