"""Writes tests/vectors/pymdp-*.json: models, and what two versions of pymdp say about them.

    python -m tests.support.record_pymdp

pymdp 0.0.7.1 (numpy) and 1.0.4 (JAX, in double precision) each run in a venv of its own (tests/bench/hllm/peers.py).
Only their answers are recorded, with the models that they are about.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.hllm import peers

VECTORS = Path(__file__).parents[1] / "vectors"
Lists = list[np.ndarray]


def main() -> None:
    for peer in ("pymdp", "pymdp-jax"):
        peers.run(peer, "tests.support.record_pymdp", [peer])


def _distribution(rng: np.random.Generator, *shape: int, sparse: bool = False) -> np.ndarray:
    found = rng.gamma(0.8, size=shape)
    if sparse:
        found *= rng.random(shape) < 0.6
        found[0] += 1e-3
    return found / found.sum(axis=0)


def _model(
    seed: int, states: list[int], outcomes: list[int], controls: list[int], *, sparse: bool = False, steps: int = 0
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "A": [_distribution(rng, size, *states, sparse=sparse) for size in outcomes],
        "B": [_distribution(rng, s, s, u, sparse=sparse) for s, u in zip(states, controls, strict=True)],
        "C": [rng.normal(size=(size, steps) if steps else size) for size in outcomes],
        "qs": [_distribution(rng, size) for size in states],
    }


def _objects(values: Lists) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        found[index] = value
    return found


PLANS: list[tuple[dict[str, Any], int]] = [
    (_model(1, [2], [2], [2]), 4),
    (_model(2, [4], [5], [3]), 3),
    (_model(3, [3, 2], [3, 2], [2, 3]), 2),
    (_model(4, [2, 3, 2], [2, 3, 2], [2, 1, 2]), 2),
    (_model(5, [4], [3, 3], [2], sparse=True), 3),
    (_model(6, [3], [3], [2], steps=3), 3),
]


def numpy_version() -> dict[str, Any]:
    """Version 0.0.7.1."""
    from pymdp import control, inference, learning, maths  # type: ignore[import-not-found]

    plans = []
    for number, (model, horizon) in enumerate(PLANS):
        A, B, C, qs = (_objects(model[name]) for name in ("A", "B", "C", "qs"))
        controls = [each.shape[2] for each in B]
        policies = control.construct_policies([len(each) for each in qs], controls, horizon, list(range(len(qs))))
        prior = _distribution(np.random.default_rng(number), len(policies))
        values = {}
        for name, (utility, gain) in {"utility": (True, False), "state_gain": (False, True)}.items():
            found = control.update_posterior_policies(qs, A, B, C, policies, utility, gain)
            values[name] = found[1]
        posterior, negative = control.update_posterior_policies(qs, A, B, C, policies, E=prior, gamma=4.0)
        plans.append(
            {
                "model": model,
                "horizon": horizon,
                "E": prior,
                "gamma": 4.0,
                "posterior": posterior,
                "negative_efe": negative,
            }
            | values
            | {"policies": np.array(policies)}
        )
    inferences = []
    for model, _ in PLANS[:4]:
        A, prior = _objects(model["A"]), _objects(model["qs"])
        for seen in range(2):
            observation = [min(seen, len(each) - 1) for each in A]
            # Its own default of ten iterations stops short of the fixed point.
            qs = inference.update_posterior_states(
                A, tuple(observation) if len(A) > 1 else observation[0], prior, num_iter=2000, dF_tol=0.0
            )
            likelihood = _seen(A, observation)
            energy = maths.calc_free_energy(
                qs, maths.spm_log_obj_array(prior), len(qs), maths.spm_log_single(likelihood)
            )
            inferences.append(
                {
                    "A": model["A"],
                    "prior": model["qs"],
                    "observation": observation,
                    "qs": list(qs),
                    "free_energy": np.sum(energy),
                }
            )
    rng = np.random.default_rng(20)
    model = PLANS[2][0]
    A, B, qs = (_objects(model[name]) for name in ("A", "B", "qs"))
    before = _objects([_distribution(rng, len(each)) for each in qs])
    pA = _objects([each * 3 for each in A])
    pB = _objects([each * 5 for each in B])
    pD = _objects([each * 2 for each in qs])
    observation, action = [1, 0], [1, 2]
    learnt = {
        "pA": list(pA),
        "pB": list(pB),
        "pD": list(pD),
        "qs": list(qs),
        "previous": list(before),
        "observation": observation,
        "action": action,
        "rate": 0.7,
        "qA": list(learning.update_obs_likelihood_dirichlet(pA, A, tuple(observation), qs, lr=0.7)),
        "qB": list(learning.update_state_likelihood_dirichlet(pB, B, np.array(action), qs, before, lr=0.7)),
        "qD": list(learning.update_state_prior_dirichlet(pD, qs, lr=0.7)),
    }
    return {"plans": plans, "inferences": inferences, "learning": learnt}


def _seen(A: np.ndarray, observation: list[int]) -> np.ndarray:
    found = A[0][observation[0]]
    for each, outcome in zip(A[1:], observation[1:], strict=True):
        found = found * each[outcome]
    return found


def jax_version() -> dict[str, Any]:
    """Version 1.0.4, with its exact gain about parameters; with known states, where it needs no approximation."""
    import jax  # type: ignore[import-not-found]

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp  # type: ignore[import-not-found]
    from pymdp import control

    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        states, outcomes, actions = 4, 3, 2
        pA = rng.gamma(1.0, size=(outcomes, states)) * 10.0 ** rng.integers(-1, 3)
        pB = rng.gamma(1.0, size=(states, states, actions)) * 10.0 ** rng.integers(-1, 3)
        A, C, qs = pA / pA.sum(axis=0), rng.normal(size=outcomes), np.eye(states)[0]
        turns = np.stack([np.eye(states)[rng.permutation(states)] for _ in range(actions)], axis=-1)
        # Known states stay known for three steps if moves are sure; else one step starts from a known state.
        for B, horizon, counts in ((turns, 3, {"pA": [pA]}), (pB / pB.sum(axis=0), 1, {"pB": [pB]})):
            policies = jnp.array(list(np.ndindex(*(actions,) * horizon)))[:, :, None]
            given = [[jnp.array(each)] for each in (qs, A, B, C)] + [jnp.ones(len(policies)) / len(policies)]
            case: dict[str, Any] = {"A": [A], "B": [B], "C": [C], "qs": [qs], "horizon": horizon, "counts": counts}
            counted = [[jnp.array(counts[name][0])] if name in counts else None for name in ("pA", "pB")]
            for name, used in (("with_gain", True), ("without", False)):
                _, negative = control.update_posterior_policies(
                    policies, *given, *counted, [[0]], [[0]], use_param_info_gain=used
                )
                case[name] = np.asarray(negative)
            found.append(case)
    return {"gains": found}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(float).tolist() if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        recorded, version = (numpy_version, "0.0.7.1") if sys.argv[1] == "pymdp" else (jax_version, "1.0.4")
        document = {
            "source": f"inferactively-pymdp {version} by tests/support/record_pymdp.py",
            "numpy": np.__version__,
        }
        text = json.dumps(document | _plain(recorded()))
        (VECTORS / f"pymdp-{version}.json").write_text(text + "\n")
