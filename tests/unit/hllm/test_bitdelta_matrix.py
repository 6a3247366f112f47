"""BitDelta of one matrix, against its formulas written out in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.bitdelta import MatrixDelta, apply, compress_matrix, distil_scales, merge_matrix, with_residual
from hllm.bitdelta.bits import SIGNS
from hllm.errors import InvalidInput

Pair = tuple[np.ndarray, np.ndarray]


def pair(rows: int, columns: int, seed: int = 0, size: float = 0.01) -> Pair:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((rows, columns), dtype=np.float32)
    return base, base + np.float32(size) * rng.standard_normal((rows, columns), dtype=np.float32)


def signs_of(delta: MatrixDelta, plane: int = 0) -> np.ndarray:
    """The signs by the format's words: the lowest bit of a byte first, set for plus."""
    rows, columns = delta.shape
    return np.array(
        [[1 if int(delta.signs[plane, r, c // 8]) >> (c % 8) & 1 else -1 for c in range(columns)] for r in range(rows)],
        np.float64,
    )


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
pairs = st.builds(
    lambda shape, seed, size: pair(*shape, seed, size),
    shapes,
    st.integers(0, 999),
    st.sampled_from([1e-6, 0.01, 1, 1e6]),
)


@settings(max_examples=60, deadline=None)
@given(pairs, st.booleans())
def test_one_plane_is_signs_and_mean_size_and_its_error_the_identity(models: Pair, per_row: bool) -> None:
    base, tuned = models
    found = compress_matrix(base, tuned, per_row=per_row)
    change = (tuned - base).astype(np.float64)
    signs = np.where(change >= 0, 1.0, -1.0)
    assert (signs_of(found) == signs).all()
    scale = np.abs(change).mean(axis=1, keepdims=True) if per_row else np.abs(change).mean()
    np.testing.assert_allclose(found.scales[0][..., None], scale, rtol=1e-6)
    # The kept scales are rounded to float32, which costs the second order alone.
    kept = (found.scales[0][:, None] if per_row else found.scales[0]).astype(np.float64)
    squares = np.sum(change**2)
    left_over = squares - np.sum(np.broadcast_to(scale, change.shape) ** 2)
    assert np.sum((change - kept * signs) ** 2) == pytest.approx(left_over, abs=1e-12 * squares)
    assert found.norm2 == pytest.approx(squares, rel=1e-5)
    assert found.error2 == pytest.approx(left_over, abs=1e-5 * squares)
    merged = merge_matrix(base, found)
    assert merged.dtype == np.float32
    np.testing.assert_array_equal(merged, (base + (kept * signs).astype(np.float32)))
    np.testing.assert_allclose(merged, base + kept * signs, rtol=2**-23)


def test_zero_counts_as_positive_of_either_sign() -> None:
    base = np.array([[1.0, 2.0, 0.0, 4.0]], np.float32)
    tuned = np.array([[1.0, 1.0, -0.0, 7.0]], np.float32)
    found = compress_matrix(base, tuned)
    assert signs_of(found).tolist() == [[1, -1, 1, 1]]
    assert found.scales.tolist() == [1.0]
    assert found.error2 == 10 - 4 * 1
    assert merge_matrix(base, found).tolist() == [[2.0, 1.0, 1.0, 5.0]]


def test_equal_models_leave_nothing() -> None:
    base, _ = pair(5, 9)
    found = compress_matrix(base, base.copy())
    assert (found.norm2, found.error2, found.relative_error) == (0, 0, 0)
    np.testing.assert_array_equal(merge_matrix(base, found), base)


@pytest.mark.parametrize("per_row", [False, True])
def test_normal_changes_lose_what_theory_says(per_row: bool) -> None:
    rng = np.random.default_rng(7)
    zero, change = np.zeros((512, 777), np.float32), rng.standard_normal((512, 777), dtype=np.float32)
    assert compress_matrix(zero, change, per_row=per_row).relative_error == pytest.approx(
        math.sqrt(1 - 2 / math.pi), abs=2e-3
    )


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 999), st.booleans())
def test_each_plane_is_the_bitdelta_of_what_is_left(shape: tuple[int, int], seed: int, per_row: bool) -> None:
    base, tuned = pair(*shape, seed)
    found = compress_matrix(base, tuned, planes=4, per_row=per_row)
    left = (tuned - base).astype(np.float64)
    squares = [np.sum(left**2)]
    for plane in range(4):
        # Where the residual is zero but for rounding, either sign is as good.
        signs = signs_of(found, plane)
        clear = np.abs(left) > 1e-6 * math.sqrt(squares[0])
        assert (signs[clear] == np.sign(left[clear])).all()
        scale = np.abs(left).mean(axis=1, keepdims=True) if per_row else np.abs(left).mean(keepdims=True)
        np.testing.assert_allclose(found.scales[plane].reshape(-1, 1), scale, atol=1e-6 * math.sqrt(squares[0]))
        left = left - scale * signs
        squares.append(np.sum(left**2))
        assert squares[-1] <= squares[-2] * (1 + 1e-9) + 1e-12 * squares[0]
    assert found.error2 == pytest.approx(squares[-1], abs=1e-5 * squares[0])
    np.testing.assert_allclose(found.dense(), tuned - base - left, atol=1e-5 * math.sqrt(squares[0]))


def test_every_plane_of_normal_changes_helps() -> None:
    base, tuned = pair(200, 300)
    errors = [compress_matrix(base, tuned, planes=count).relative_error for count in range(1, 7)]
    assert all(later < 0.9 * earlier for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (17, 17), (1, 9), (9, 1)])
@pytest.mark.parametrize("planes", [1, 2])
def test_the_residual_is_the_truncated_svd(shape: tuple[int, int], planes: int) -> None:
    base, tuned = pair(*shape)
    plain = compress_matrix(base, tuned, planes=planes)
    left = tuned.astype(np.float64) - base - plain.dense()
    u, s, v = np.linalg.svd(left)
    for rank in {1, min(3, *shape), min(shape)}:
        found = with_residual(plain, base, tuned, rank)
        assert found.rank == rank
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        np.testing.assert_allclose(found.left.astype(np.float64) @ found.right, best, atol=1e-6 * s[0])
        # Eckart and Young: the squares of the singular values that are left out.
        assert found.error2 == pytest.approx(np.sum(s[rank:] ** 2), abs=1e-6 * np.sum(s**2))
        np.testing.assert_allclose(
            merge_matrix(base, found), base + plain.dense() + best, rtol=1e-6, atol=1e-6 * np.abs(base).max()
        )
    assert with_residual(plain, base, tuned, 0) is plain


def test_a_residual_of_nothing_is_zero() -> None:
    base = np.ones((4, 6), np.float32)
    tuned = base + np.float32(0.5)  # one scale is exact
    found = with_residual(compress_matrix(base, tuned), base, tuned, 2)
    assert not found.left.any()
    assert not found.right.any()
    np.testing.assert_array_equal(merge_matrix(base, found), tuned)


@settings(max_examples=40, deadline=None)
@given(pairs, st.integers(1, 5), st.integers(1, 3), st.booleans(), st.integers(0, 1))
def test_apply_is_the_product_with_the_merged(models: Pair, n: int, planes: int, per_row: bool, rank: int) -> None:
    base, tuned = models
    signs = compress_matrix(base, tuned, planes=planes, per_row=per_row)
    found = with_residual(signs, base, tuned, rank)
    merged = merge_matrix(base, found)
    x = np.random.default_rng(n).standard_normal((n, base.shape[1]), dtype=np.float32)
    exact = x.astype(np.float64) @ merged.T.astype(np.float64)
    # What is added up may be larger than the sum: a row's change can be smaller than the matrix's scale.
    parts = sum(np.linalg.norm(each, axis=1) for each in (base, signs.dense(), merged))
    size = np.linalg.norm(x, axis=1, keepdims=True) * parts
    assert (np.abs(apply(x, base, found) - exact) <= 1e-6 * size).all()


def test_matrices_of_many_tiles_are_as_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = pair(37, 53)
    x = np.random.default_rng(1).standard_normal((3, 53), dtype=np.float32)
    for planes in (1, 2):
        whole = compress_matrix(base, tuned, planes=planes, per_row=True)
        merged, product = merge_matrix(base, whole), apply(x, base, whole)
        with monkeypatch.context() as patch:
            patch.setattr("hllm.bitdelta.bits.TILE", 100)
            tiled = compress_matrix(base, tuned, planes=planes, per_row=True)
            np.testing.assert_array_equal(tiled.signs, whole.signs)
            np.testing.assert_array_equal(tiled.scales, whole.scales)
            np.testing.assert_array_equal(merge_matrix(base, tiled), merged)
            np.testing.assert_allclose(apply(x, base, tiled), product, rtol=1e-5, atol=1e-5)
    out = base.copy()
    assert merge_matrix(out, whole, out) is out
    np.testing.assert_array_equal(out, merged)


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("planes", [1, 3])
def test_distilled_scales_are_least_squares(planes: int, per_row: bool) -> None:
    base, tuned = pair(12, 20)
    inputs = np.random.default_rng(3).standard_normal((40, 20), dtype=np.float32) * np.linspace(0.1, 3, 20, dtype="f4")
    plain = compress_matrix(base, tuned, planes=planes, per_row=per_row)
    found = distil_scales(plain, base, tuned, inputs)
    x, change = inputs.astype(np.float64), tuned.astype(np.float64) - base
    outputs = np.stack([x @ signs_of(plain, plane).T for plane in range(planes)], axis=-1)  # (n, rows, planes)
    wanted = x @ change.T
    if per_row:
        best = np.stack([np.linalg.lstsq(outputs[:, row], wanted[:, row], rcond=None)[0] for row in range(12)], axis=1)
    else:
        best = np.linalg.lstsq(outputs.reshape(-1, planes), wanted.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(found.scales, best, rtol=1e-5, atol=1e-8)
    assert np.linalg.norm(x @ found.dense().T - wanted) < np.linalg.norm(x @ plain.dense().T - wanted)
    assert found.error2 == pytest.approx(np.sum((change - found.dense()) ** 2), rel=1e-5)
    if planes == 1:  # of the weights themselves the mean size is best
        assert found.error2 >= plain.error2 * (1 - 1e-5)


def test_inputs_that_say_nothing_change_no_scale() -> None:
    base, tuned = pair(6, 8)
    plain = compress_matrix(base, tuned, planes=2, per_row=True)
    np.testing.assert_array_equal(distil_scales(plain, base, tuned, np.zeros((3, 8), np.float32)).scales, plain.scales)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("planes", [1, 2])
def test_values_that_are_not_finite_are_refused(bad: float, planes: int) -> None:
    base, tuned = pair(4, 4)
    tuned[2, 3] = bad
    for first, second in ((base, tuned), (tuned, base), (tuned, tuned)):
        with pytest.raises(InvalidInput, match="not finite"):
            compress_matrix(first, second, planes=planes)


def test_differences_beyond_float32_are_refused() -> None:
    large = np.full((2, 2), 3e38, np.float32)
    with pytest.raises(InvalidInput, match="not finite"):
        compress_matrix(large, -large)


def test_what_does_not_fit_is_refused() -> None:
    base, tuned = pair(4, 6)
    delta = compress_matrix(base, tuned)
    x = np.ones((2, 6), np.float32)
    refused = [
        (lambda: compress_matrix(base, tuned[:3]), "different models"),
        (lambda: compress_matrix(base, tuned.astype(np.float64)), "float32"),
        (lambda: compress_matrix(base[0], tuned[0]), "rows and columns"),
        (lambda: compress_matrix(base[:0], tuned[:0]), "rows and columns"),
        (lambda: compress_matrix(base, tuned, planes=0), "planes is 0"),
        (lambda: compress_matrix(base, tuned, planes=17), "planes is 17"),
        (lambda: with_residual(delta, base, tuned, 5), "ranks 0 to 4"),
        (lambda: with_residual(delta, base[:3], tuned[:3], 1), "another matrix"),
        (lambda: merge_matrix(base[:3], delta), "shape"),
        (lambda: merge_matrix(base.astype(np.float64), delta), "float32"),
        (lambda: apply(x[:, :5], base, delta), "x has the shape"),
        (lambda: distil_scales(delta, base, tuned, x[:, :5]), "inputs have the shape"),
        (lambda: distil_scales(delta, base, tuned, x[:0]), "inputs have the shape"),
        (lambda: distil_scales(delta, base, tuned, x * np.float32(np.nan)), "not finite"),
        (lambda: distil_scales(delta, base[:3], tuned, x), "base and tuned have"),
        (lambda: distil_scales(with_residual(delta, base, tuned, 1), base, tuned, x), "distil first"),
    ]
    for call, told in refused:
        with pytest.raises(InvalidInput, match=told):
            call()


def test_the_table_holds_the_signs_of_each_byte() -> None:
    assert SIGNS.tolist() == [[1.0 if byte >> bit & 1 else -1.0 for bit in range(8)] for byte in range(256)]
