"""The standardiser against numpy, in any batches, far from zero, and with values missing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import InvalidInput
from hllm.features import TelemetryStandardizer

COLUMNS = ("queue", "latency", "load")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    offset=st.sampled_from([0.0, 1e3, 1e9]),
    missing=st.sampled_from([0.0, 0.3]),
)
def test_any_batches_give_numpys_moments(seed, size, cuts, offset, missing):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 3)) + offset
    x[rng.random(x.shape) < missing] = math.nan
    made = TelemetryStandardizer(COLUMNS)
    for part in np.split(x, sorted(min(cut, size) for cut in cuts)):
        made.update(part[0] if len(part) == 1 else part)
    np.testing.assert_array_equal(made.counts, (~np.isnan(x)).sum(axis=0))
    for column in range(3):
        seen = x[~np.isnan(x[:, column]), column]
        if len(seen):
            assert made.means[column] == pytest.approx(seen.mean(), rel=1e-14, abs=1e-13)
            # What rounding of the values leaves: the offset's last digit, against a variance of about one.
            assert made.variances[column] == pytest.approx(seen.var(), rel=1e-9, abs=1e-6 if offset == 1e9 else 1e-10)


def test_the_naive_sum_of_squares_would_fail_here():
    x = 1e9 + np.random.default_rng(1).normal(size=(3000, 1))
    made = TelemetryStandardizer(["a"])
    for row in x:
        made.update(row)
    assert made.variances[0] == pytest.approx(np.var(x), rel=1e-7)
    naive = np.sum(x * x) / len(x) - np.mean(x) ** 2
    assert abs(naive - np.var(x)) > 0.1


def test_scores_are_standard():
    x = np.random.default_rng(5).gamma(2.0, 3.0, size=(500, 3))
    made = TelemetryStandardizer(COLUMNS).update(x)
    np.testing.assert_allclose(made.transform(x), (x - x.mean(axis=0)) / x.std(axis=0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(made.transform(x[7]), made.transform(x)[7], rtol=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(0, 30))
def test_merging_is_learning_both(seed, cut):
    x = np.random.default_rng(seed).normal(5.0, 2.0, size=(30, 3))
    left, right = TelemetryStandardizer(COLUMNS).update(x[:cut]), TelemetryStandardizer(COLUMNS).update(x[cut:])
    left.merge(right)
    np.testing.assert_allclose(left.means, x.mean(axis=0))
    np.testing.assert_allclose(left.variances, x.var(axis=0))


def test_missing_values_are_refused_or_masked():
    made = TelemetryStandardizer(COLUMNS).update([[1.0, 2.0, math.nan], [3.0, 6.0, math.nan]])
    with pytest.raises(InvalidInput, match=r"missing in \['latency', 'load'\]"):
        made.transform([[1.0, math.nan, 2.0], [1.0, 1.0, math.nan]])
    scores, seen = made.transform_masked([3.0, math.nan, 2.0])
    assert scores.tolist() == [1.0, 0.0, 2.0]  # what was never seen is taken as it is
    assert seen.tolist() == [True, False, True]


def test_columns_that_do_not_vary_are_centred():
    made = TelemetryStandardizer(["a", "b"])
    assert made.transform([5.0, -1.0]).tolist() == [5.0, -1.0]
    for _ in range(7):
        made.update([0.1, 1e9 / 3])
    assert made.transform([0.1, 1e9 / 3 + 2]).tolist() == pytest.approx([0.0, 2.0], abs=1e-6)


def test_a_wild_value_is_clipped():
    made = TelemetryStandardizer(["a"], clip=4.0).update([[0.0], [2.0]])
    assert made.transform([[1e30], [-1e30], [1.5]]).tolist() == [[4.0], [-4.0], [0.5]]


def test_json_gives_it_back():
    made = TelemetryStandardizer(COLUMNS, clip=6.0).update(np.random.default_rng(0).normal(size=(9, 3)))
    again = TelemetryStandardizer.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again.to_dict() == made.to_dict()
    x = np.random.default_rng(1).normal(size=(4, 3))
    np.testing.assert_array_equal(again.transform(x), made.transform(x))
    np.testing.assert_array_equal(again.update(x).means, made.update(x).means)


SAVED = TelemetryStandardizer(["a"]).update([[1.0], [2.0]]).to_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TelemetryStandardizer([]), "one or more names"),
        (lambda: TelemetryStandardizer("ab"), "one or more names"),
        (lambda: TelemetryStandardizer(["a", "a"]), "each once"),
        (lambda: TelemetryStandardizer(["a"], clip=0.0), "clip is 0.0"),
        (lambda: TelemetryStandardizer(["a"]).update([1.0, 2.0]), "values have shape"),
        (lambda: TelemetryStandardizer(["a"]).update(1.0), "values have shape"),
        (lambda: TelemetryStandardizer(["a"]).update(["x"]), "no numbers"),
        (lambda: TelemetryStandardizer(["a"]).update([math.inf]), "infinite"),
        (lambda: TelemetryStandardizer(["a"]).transform([-math.inf]), "infinite"),
        (lambda: TelemetryStandardizer(["a"]).merge(TelemetryStandardizer(["b"])), "are not"),
        (lambda: TelemetryStandardizer.from_dict(None), "is no hllm.features.telemetry"),
        (lambda: TelemetryStandardizer.from_dict(SAVED | {"x": 1}), "is no hllm.features.telemetry"),
        (lambda: TelemetryStandardizer.from_dict(SAVED | {"columns": "a"}), "no list"),
        (lambda: TelemetryStandardizer.from_dict(SAVED | {"means": [1.0, 2.0]}), "means has shape"),
        (lambda: TelemetryStandardizer.from_dict(SAVED | {"counts": [-1.0]}), "negative"),
        (lambda: TelemetryStandardizer.from_dict(SAVED | {"squares": [math.nan]}), "squares has 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
