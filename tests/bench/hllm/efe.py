"""Expected free energy of every policy, beside pymdp 0.0.7.1 (numpy) and 1.0.4 (JAX, compiled and warm).

    python -m tests.bench.hllm.efe [--rounds 40]

Each peer has a process of its own (see peers.py) in which both sides run in turn, with one thread. Times are the best
of the rounds, as CPU time of the process; pymdp 0.0.7.1 runs once for each case. Compilation is left out of JAX's
times and shown beside them (``first``). Its compiled function has the model in it as constants: so ``ours`` beside it
is a planner that has its model ready, too, and ``whole`` is a call with all checks and tables. JAX computes in single
precision, as it does by default; ours is in double.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hllm.free_energy import Planner, expected_free_energy
from tests.bench.hllm import peers

CASES: dict[str, tuple[list[int], list[int], list[int], int]] = {
    "S8 O5 U4 H4: 256 policies": ([8], [5], [4], 4),
    "S8 O5 U4 H6: 4,096 policies": ([8], [5], [4], 6),
    "S4,3 O5,3,2 U3,2 H4: 1,296 policies": ([4, 3], [5, 3, 2], [3, 2], 4),
}
"""By name: states of each factor, outcomes of each modality, actions of each factor, horizon."""
TINY = {"S2 O2 U2 H2": ([2], [2], [2], 2)}


def _model(states: list[int], outcomes: list[int], controls: list[int]) -> tuple[list[np.ndarray], ...]:
    rng = np.random.default_rng(0)

    def distribution(*shape: int) -> np.ndarray:
        found = rng.gamma(1.0, size=shape)
        return found / found.sum(axis=0)

    A = [distribution(size, *states) for size in outcomes]
    B = [distribution(s, s, u) for s, u in zip(states, controls, strict=True)]
    return A, B, [rng.normal(size=size) for size in outcomes], [distribution(size) for size in states]


def _best(call: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    found, best = None, float("inf")
    for _ in range(rounds):
        start = time.process_time()
        found = call()
        best = min(best, time.process_time() - start)
    return best, found


def _ours(case: tuple[list[int], list[int], list[int], int], rounds: int) -> tuple[float, float, np.ndarray]:
    """The time with a model that is ready, that of a whole call, and -G."""
    A, B, C, qs = _model(*case[:3])
    planner = Planner(A, B, C, case[3])
    ready, found = _best(lambda: planner.evaluate(qs), rounds)
    whole, _ = _best(lambda: expected_free_energy(A, B, C, qs, case[3]), rounds)
    return ready, whole, -found.efe


def beside_numpy(cases: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """pymdp 0.0.7.1: ``update_posterior_policies`` over the policies that it has constructed before."""
    from pymdp import control  # type: ignore[import-not-found]

    def objects(values: list[np.ndarray]) -> np.ndarray:
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found

    rows = []
    for name, case in cases.items():
        A, B, C, qs = map(objects, _model(*case[:3]))
        policies = control.construct_policies(case[0], case[2], case[3], list(range(len(case[0]))))
        theirs, (_, wanted) = _best(lambda given=(qs, A, B, C, policies): control.update_posterior_policies(*given), 1)
        _, ours, found = _ours(case, rounds)
        rows.append({"case": name, "theirs": theirs, "ours": ours, "apart": float(np.abs(found - wanted).max())})
    return rows


def beside_jax(cases: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """pymdp 1.0.4: the same function, compiled for each case. With several modalities it sums their gains."""
    import jax  # type: ignore[import-not-found]
    import jax.numpy as jnp  # type: ignore[import-not-found]
    from pymdp import control

    rows = []
    for name, case in cases.items():
        A, B, C, qs = ([jnp.array(each) for each in part] for part in _model(*case[:3]))
        policies = jnp.array(list(np.ndindex(*(tuple(case[2]) * case[3])))).reshape(-1, case[3], len(case[2]))
        prior = jnp.ones(len(policies)) / len(policies)
        everything = list(range(len(case[0])))
        needs = [everything for _ in case[1]], [[factor] for factor in everything]

        @jax.jit
        def compiled(qs: Any, policies: Any = policies, given: Any = (A, B, C, prior), needs: Any = needs) -> Any:
            return control.update_posterior_policies(policies, qs, *given, None, None, *needs)

        first, _ = _best(lambda run=compiled, qs=qs: jax.block_until_ready(run(qs)), 1)
        theirs = ours = whole = float("inf")
        found = wanted = np.zeros(1)
        for _ in range(4):  # in turn
            best, (_, wanted) = _best(lambda run=compiled, qs=qs: jax.block_until_ready(run(qs)), rounds // 4 + 1)
            theirs = min(theirs, best)
            ready, best, found = _ours(case, rounds // 4 + 1)
            ours, whole = min(ours, ready), min(whole, best)
        constant = case[3] * sum(np.log(np.exp(each).sum()) for each in C)
        apart = float(np.abs(found + constant - np.asarray(wanted)).max()) if len(case[1]) == 1 else None
        rows.append({"case": name, "theirs": theirs, "ours": ours, "whole": whole, "first": first, "apart": apart})
    return rows


def main() -> None:
    """Measure in this process if a peer is named, else in that of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--tiny", action="store_true", help="one small case, to see that it runs")
    parser.add_argument("--inside", choices=["pymdp", "pymdp-jax"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside is None:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["JAX_PLATFORMS"] = "cpu"
        for peer in ("pymdp", "pymdp-jax"):
            peers.run(peer, "tests.bench.hllm.efe", [*sys.argv[1:], "--inside", peer])
        return
    measure = beside_numpy if given.inside == "pymdp" else beside_jax
    print(f"{'pymdp 0.0.7.1' if given.inside == 'pymdp' else 'pymdp 1.0.4'}; times in ms")
    for row in measure(TINY if given.tiny else CASES, given.rounds):
        row |= {name: round(row[name] * 1e3, 4) for name in ("theirs", "ours", "whole", "first") if name in row}
        print(json.dumps(row | {"ratio": round(row["theirs"] / row["ours"], 1)}), flush=True)


if __name__ == "__main__":
    main()
