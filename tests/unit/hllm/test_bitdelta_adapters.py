"""Several adapters over one base, and the choice among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hllm.bitdelta import AdapterChoice, Adapters, Options, compress, merge
from hllm.errors import InvalidInput


@pytest.fixture
def adapters() -> Adapters:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    base = {"a": values(20, 30), "b": values(8, 8), "embed": values(6, 8), "bias": values(8)}
    legal = base | {"a": base["a"] + values(20, 30), "embed": values(6, 8)}
    medical = base | {"a": base["a"] + values(20, 30), "b": base["b"] + values(8, 8)}
    return Adapters(
        base, {"legal": compress(base, legal), "medical": compress(base, medical, Options(planes=2, rank=1))}
    )


def test_weights_are_the_merged_model_and_merged_once(adapters: Adapters) -> None:
    for name in ("legal", "medical", "legal"):
        found, expected = adapters.weights(name), merge(adapters.base, adapters.deltas[name])
        assert all(np.array_equal(found[each], expected[each]) for each in expected)
        assert adapters.weights(name) is found
    with pytest.raises(InvalidInput, match="no adapter 'x'; known are legal, medical"):
        adapters.weights("x")


@pytest.mark.parametrize("matrix", ["a", "b", "embed"])
def test_a_mixed_batch_is_answered_row_by_row(adapters: Adapters, matrix: str) -> None:
    width = adapters.base[matrix].shape[1]
    x = np.random.default_rng(1).standard_normal((5, width), dtype=np.float32)
    who = ["legal", "medical", "medical", "legal", "medical"]
    found = adapters.product(matrix, x, who)
    for row, name in enumerate(who):
        np.testing.assert_allclose(found[row], x[row] @ adapters.weights(name)[matrix].T, rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidInput, match="adapters are named"):
        adapters.product(matrix, x, who[:4])
    with pytest.raises(InvalidInput, match="no adapter"):
        adapters.product(matrix, x[:1], ["x"])


def test_adapters_take_little_more_than_the_base() -> None:
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((256, 256), dtype=np.float32)}
    deltas = {
        str(k): compress(base, {"w": base["w"] + rng.standard_normal((256, 256), dtype=np.float32)}) for k in range(8)
    }
    assert Adapters(base, deltas).nbytes == 256 * 256 * 4 + 8 * (256 * 256 // 8 + 4)


def test_an_adapter_of_another_base_is_refused(adapters: Adapters) -> None:
    other = adapters.base | {"bias": np.zeros(8, np.float32)}
    with pytest.raises(InvalidInput, match="adapter 'legal': the delta was made of the base"):
        Adapters(other, adapters.deltas)


def test_a_glimpse_changes_nothing_and_a_change_does() -> None:
    choice = AdapterChoice(["legal", "medical"], margin=0.2, dwell=2)
    seen = [choice.update([1 - p, p]) for p in (0.9, 0.1, 0.9, 0.55, 0.9, 0.9, 0.5, 0.4, 0.41, 0.3, 0.3)]
    assert seen == [*["legal"] * 5, *["medical"] * 5, "legal"]


def test_regimes_of_one_adapter_count_together() -> None:
    choice = AdapterChoice(["base", "legal", "legal"], margin=0.1, dwell=1)
    assert choice.update([0.4, 0.3, 0.3]) == "legal"
    assert choice.update([0.5, 0.3, 0.2]) == "legal"
    assert choice.update([0.6, 0.2, 0.2]) == "base"


@given(st.integers(1, 4), st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.0, 0.125, 0.5]))
def test_a_switch_has_its_margin_for_as_long_as_asked(dwell: int, course: list[float], margin: float) -> None:
    choice = AdapterChoice(["a", "b"], margin=margin, dwell=dwell)
    served, since = "a", -1
    for at, p in enumerate(course):
        found = choice.update([1 - p, p])
        if found != served:
            sign = 1 if found == "b" else -1
            assert at - since >= dwell
            recent = course[at - dwell + 1 : at + 1]
            assert len(recent) == dwell
            assert all(sign * (q - (1 - q)) >= margin for q in recent)
            served, since = found, at


def test_what_is_no_belief_is_refused() -> None:
    choice = AdapterChoice(["a", "b"])
    for beliefs, told in (
        ([1.0], "1 beliefs for 2"),
        ([0.5, 0.6], "1 in all"),
        ([1.5, -0.5], "below zero"),
        ([float("nan")] * 2, "probabilities"),
    ):
        with pytest.raises(InvalidInput, match=told):
            choice.update(beliefs)
    assert choice.current == "a"
    for words, told in (({"margin": 1.0}, "margin"), ({"margin": -0.1}, "margin"), ({"dwell": 0}, "dwell")):
        with pytest.raises(InvalidInput, match=told):
            AdapterChoice(["a"], **words)
    with pytest.raises(InvalidInput, match="no regimes"):
        AdapterChoice([])
