"""The C form of the recursions: compiled here, and the same as numpy's on the same chains."""

import shutil

import numpy as np
import pytest

from hllm.hmm import accelerator, inference
from hllm.hmm.layout import Layout
from tests.unit.hllm.hmm_cases import random_chain


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the source in a folder of the test's, and nothing loaded before or after."""
    copy = tmp_path / "recursions.c"
    copy.write_bytes(accelerator.SOURCE.read_bytes())
    monkeypatch.setattr(accelerator, "SOURCE", copy)
    monkeypatch.delenv("HLLM_ACCELERATOR", raising=False)
    accelerator.forget()
    yield copy
    accelerator.forget()


def cases():
    rng = np.random.default_rng(0)
    for stay in (0.0, 2.0, 1e4):
        for states in (1, 2, 5):
            for noise in (0.1, 5.0, 400.0):  # the last does not fit doubles: both sides go to logarithms
                lengths = rng.integers(1, 150, size=rng.integers(1, 4))
                start, transmat = random_chain(rng, states, stay)
                layout = Layout(lengths)
                emission = np.empty((layout.steps, states, layout.blocks))
                layout.spread(noise * rng.normal(size=(lengths.sum(), states)), emission)
                yield emission.copy, layout, start, transmat


def everything():
    out = []
    for case in cases():
        found = inference.expectation(*case)
        value, path = inference.best_path(*case)
        rows = case[1].collect(found.posteriors)
        out.append(
            (inference.log_likelihood(*case), found.log_likelihood, rows, found.start, found.transitions, value, path)
        )
    return out


def test_c_and_numpy_agree(source, monkeypatch):
    monkeypatch.setenv("HLLM_ACCELERATOR", "0")
    accelerator.build()
    assert accelerator.active() is None
    plain = everything()
    monkeypatch.delenv("HLLM_ACCELERATOR")
    accelerator.forget()
    assert accelerator.active() is not None
    for ours, theirs in zip(everything(), plain, strict=True):
        np.testing.assert_array_equal(ours[-1], theirs[-1])
        for one, other in zip(ours[:-1], theirs[:-1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_without_a_compiler_numpy_runs(source, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="no C compiler"):
        accelerator.build()
    assert accelerator.active() is None
    assert np.isfinite(inference.log_likelihood(*next(cases())))


def test_a_source_that_does_not_compile_is_told_and_leaves_nothing(source):
    source.write_text("this is not C")
    with pytest.raises(RuntimeError, match="failed"):
        accelerator.build()
    assert [each.name for each in source.parent.iterdir()] == ["recursions.c"]


def test_a_library_of_another_machine_is_passed_over(source):
    accelerator.library().write_bytes(b"not a shared object")
    accelerator.forget()
    assert accelerator.active() is None
