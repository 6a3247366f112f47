"""The shipped router plays the experiment's world `easy` beside its vectorised form: regrets, and time per call."""

from __future__ import annotations

import time

import numpy as np

from hllm.router import Candidate, Feedback, Request, Router, RouterSettings, RouterState
from tests.bench.hllm.routing import batched, warm, worlds


class Shipped:
    """hllm.router for one seed, as an agent of the experiment; it filters by itself."""

    def __init__(self, world, settings):
        self.world, self.router = world, Router()
        self.state = warm.start(world.warm_evidence[:, 0], world.warm_telemetry[:, 0], settings)
        self.seconds = {"decide": [], "advance": [], "learn": []}

    def timed(self, what, call):
        began = time.process_time()
        out = call()
        self.seconds[what].append(time.process_time() - began)
        return out

    def choose(self, t, price, load):
        routes = [
            Candidate(
                f"r{a}", f"b{worlds.BACKEND_OF[a]}", f"m{worlds.MODEL_OF[a]}",
                price=float(price[0, a]), load=float(load[0, worlds.BACKEND_OF[a]]),
            )
            for a in range(worlds.ARMS)
        ]  # fmt: skip
        request = Request(
            value=worlds.VALUE,
            miss_cost=worlds.MISS,
            domain_evidence=self.world.evidence[t, 0],
            telemetry=self.world.telemetry[t, 0],
        )
        decision = self.timed("decide", lambda: self.router.decide(self.state, request, routes, seed=t))
        self.state = self.timed(
            "advance",
            lambda: self.router.advance(
                self.state, telemetry=self.world.telemetry[t, 0], domain_evidence=self.world.evidence[t, 0]
            ),
        )
        return np.array([int(decision.chosen.name[1:])])

    def learn(self, t, arm, ok, met, load):
        a = int(arm[0])
        f = Feedback(
            f"m{worlds.MODEL_OF[a]}", f"b{worlds.BACKEND_OF[a]}", bool(ok[0]), bool(met[0]),
            load=float(load[0, worlds.BACKEND_OF[a]]),
        )  # fmt: skip
        self.state = self.timed("learn", lambda: self.router.learn(self.state, [f]))


def play(mode, seeds, steps, name="easy"):
    """(shipped, vectorised) regrets per seed, and the last shipped agent."""
    ours, theirs, agent = [], [], None
    settings = RouterSettings(mode=mode)
    for seed in seeds:
        world = worlds.make(name, [seed], steps)
        agent = Shipped(world, settings)
        ours.append(float(worlds.run(world, agent)["regret"][0]))
        vectorised = batched.Hllm([seed], [settings], 3, warm.beliefs(world))
        theirs.append(float(worlds.run(world, vectorised)["regret"][0]))
    return ours, theirs, agent


def fifty(rounds=1500):
    """CPU seconds of decisions between 50 candidates (six domains, three regimes, 50 backends), trace included."""
    rng, router = np.random.default_rng(0), Router()
    state = RouterState.new(domains=worlds.DOMAINS, regimes=("calm", "busy", "storm"))
    state = state.with_regimes(state.regime_transition, 2 * np.eye(3)[:, :2], np.stack([np.eye(2)] * 3))
    routes = [
        Candidate(
            f"c{i}", f"b{i}", f"m{i % 5}", price=float(rng.random() / 10), tier=i % 3, load=float(i % 4),
            limits={"cpu_millis": 8000.0, "memory_mib": 100.0}, capabilities=frozenset({"py"}),
        )
        for i in range(50)
    ]  # fmt: skip
    request = Request(
        capabilities=frozenset({"py"}),
        resources={"cpu_millis": 1000.0, "memory_mib": 10.0},
        price_cap=0.2,
        domain_evidence=[0, 1, 2, 0, 0, 0],
        telemetry=[0.1, 0.2],
    )
    seen = [
        Feedback(f"m{i % 5}", f"b{i % 50}", bool(rng.random() < 0.8), bool(rng.random() < 0.7), load=float(i % 4))
        for i in range(400)
    ]
    state = router.learn(state, seen)
    out = []
    for seed in range(rounds):
        began = time.process_time()
        router.decide(state, request, routes, seed=seed)
        out.append(time.process_time() - began)
    return out


def main():
    x = fifty()
    print(f"50 candidates: least {min(x) * 1e6:.0f} µs, median {np.median(x) * 1e6:.0f} µs of CPU")
    for mode, seeds in (("expected", (0, 1)), ("sampled", range(6))):
        ours, theirs, agent = play(mode, seeds, 1500)
        print(f"{mode}: shipped {np.mean(ours):.2f} ± {np.std(ours) / len(ours) ** 0.5:.2f}, ", end="")
        print(f"vectorised {np.mean(theirs):.2f} ± {np.std(theirs) / len(theirs) ** 0.5:.2f}")
        for what, x in agent.seconds.items():
            print(f"  {what}: median {np.median(x) * 1e6:.0f} µs, p99 {np.percentile(x, 99) * 1e6:.0f} µs of CPU")
