"""The vectorised router of the routing experiment is the shipped one: in the mode without samples, the same regret."""

import numpy as np
import pytest

from hllm.errors import InvalidInput
from hllm.router_fit import fit_transition
from tests.bench.hllm.routing import check, entrants, worlds


@pytest.mark.parametrize("name", ["load", "interaction"])
def test_the_vectorised_router_is_the_shipped_one(name, monkeypatch):
    monkeypatch.setattr(worlds, "WARM", 300)
    ours, theirs, _ = check.play("expected", [3], 60, name)
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_every_entrant_plays(monkeypatch):
    monkeypatch.setattr(worlds, "WARM", 300)
    seeds = [5]
    world = worlds.make("drift", seeds, 12)
    beliefs = check.warm.beliefs(world)
    for name in (*entrants.BARE, *entrants.GIVEN, "hllm", *entrants.ABLATIONS):
        some = entrants.grid("hllm" if name.startswith("hllm") else name)
        assert len(some) in (1, 6)
        for at in entrants.groups(name, some):
            agent = entrants.make(name, seeds, [some[i] for i in at], 0, world, beliefs)
            out = worlds.run(world, agent, len(at))
            assert np.isfinite(out["regret"]).all()
            assert (out["regret"] >= 0).all()


def test_a_transition_is_learnt_from_evidence_alone():
    rng = np.random.default_rng(0)
    domain = worlds.chain(rng, 4000, 6, 0.95)
    fitted = fit_transition(worlds.evidence_of(rng, domain), n_iter=8)
    assert np.allclose(fitted.sum(1), 1)
    # A chain that keeps its state with .95 and else jumps to any of six stays with .95 + .05/6.
    assert np.abs(np.diag(fitted) - (0.95 + 0.05 / 6)).max() < 0.04
    with pytest.raises(InvalidInput):
        fit_transition([[1.0, float("nan")], [0.0, 0.0]])
    with pytest.raises(InvalidInput):
        fit_transition([1.0, 2.0])
    assert fit_transition([[0.0], [0.0]]).tolist() == [[1.0]]
