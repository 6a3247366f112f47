"""Backends whose prices move: the two processes of the price term's experiment. A step is the time of a request.

`surges` is not the market of hllm: prices revert by a first-order law, and jump up by exponential amounts, the more
often the worse the regime and the higher the excess demand; each posted price has noise of its own. `market` is the
market of hllm with quadratic wells, by plain BAOAB (Leimkuhler, Matthews 2013), and nothing else. In both the regime is
the one that drives the telemetry, and the excess of demand over capacity is seen by all agents.
"""

from __future__ import annotations

import numpy as np

WORLDS = ("surges", "market", "dear surges", "dear market")
"""In the dear ones the prices of backends are four times as high."""
BASE = np.array([0.03, 0.05, 0.08])
"""Credits at (shared, reserved, dedicated) when nothing is the matter."""
WAITS = {"short": (4, 2, 1), "long": (20, 10, 5)}
"""Steps from routing to the beginning of service on each backend: when the price is settled."""
TAIL = 20
"""Steps beyond the last request, so that it can be settled."""
STRAIN = np.array([0.3, 0.6, 1.0])
STIFFNESS, FRICTION, TEMPERATURE, SENSITIVITY = 0.02, 0.15, 0.0008, 0.01
CENTRE = np.array([0.0, 0.25, 0.6])


def walk(name, rng, regime):
    """(prices in credits, excess demand), each (steps, 3)."""
    steps = len(regime)
    excess = np.empty((steps, 3))
    e = 0.5 * rng.standard_normal(3)
    shock = 0.5 * np.sqrt(1 - 0.97**2) * rng.standard_normal((steps, 3))
    for t in range(steps):
        excess[t] = e = 0.97 * e + shock[t]
    q = (_surges if name.endswith("surges") else _market)(rng, regime, excess)
    return (4 if name.startswith("dear") else 1) * BASE * np.exp(q), excess


def _surges(rng, regime, excess):
    stress, short = regime[:, None] / 2.0, np.maximum(excess, 0.0)
    jumps = rng.random(excess.shape) < 0.004 + 0.03 * stress + 0.02 * short
    push = np.where(jumps, 0.3 * STRAIN * rng.exponential(size=excess.shape), 0.0)
    push += 0.02 * rng.standard_normal(excess.shape)
    level = 0.15 * stress * STRAIN + 0.3 * short
    q, x = np.empty(excess.shape), level[0]
    for t in range(len(q)):
        q[t] = x = x + 0.05 * (level[t] - x) + push[t]
    return q + 0.05 * rng.standard_normal(q.shape)


def _market(rng, regime, excess):
    kept = np.exp(-FRICTION)
    noise = np.sqrt(TEMPERATURE * (1 - kept * kept)) * rng.standard_normal(excess.shape)
    centre, drive = CENTRE[regime], SENSITIVITY * excess
    q, x, p = np.empty(excess.shape), np.full(3, centre[0]), np.zeros(3)
    for t in range(len(q)):
        p = p + 0.5 * (drive[t] - STIFFNESS * (x - centre[t]))
        x = x + 0.5 * p
        p = kept * p + noise[t]
        x = x + 0.5 * p
        p = p + 0.5 * (drive[t] - STIFFNESS * (x - centre[t]))
        q[t] = x
    return q


def settled(price, waits):
    """What a job routed at each step pays, (steps - TAIL, ..., 3): the price of (steps, ..., 3) when it begins."""
    steps = len(price) - TAIL
    return np.stack([price[w : w + steps, ..., b] for b, w in enumerate(waits)], axis=-1)
