"""Deltas of whole models: compressed, saved, loaded, merged; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.bitdelta import (
    Delta,
    Entry,
    MatrixDelta,
    Options,
    Tensor,
    compress,
    compress_matrix,
    digest_of,
    merge,
    merge_file,
    report,
)
from hllm.bitdelta import safetensors as files
from hllm.errors import InvalidInput

Model = dict[str, np.ndarray]


def models(seed: int = 0) -> tuple[Model, Model]:
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    base = {
        "embeddings.weight": values(30, 16),
        "layer.q.weight": values(16, 20),
        "layer.k.weight": values(24, 16),
        "layer.k.bias": values(24),
        "conv.weight": values(4, 3, 5),
        "half.weight": values(8, 12).astype(np.float16),
        "ids": np.arange(9),
    }
    tuned = {name: each.copy() for name, each in base.items()}
    for name in ("embeddings.weight", "layer.q.weight", "layer.k.bias", "conv.weight", "half.weight"):
        tuned[name] = (tuned[name] + 0.01 * values(*tuned[name].shape)).astype(tuned[name].dtype)
    tuned["ids"] = tuned["ids"][::-1].copy()
    tuned["head.weight"] = values(2, 16)
    return base, tuned


def check_merged(base: Model, tuned: Model, found: Model) -> None:
    assert found.keys() == tuned.keys()
    for name in ("embeddings.weight", "layer.k.weight", "layer.k.bias", "ids", "head.weight"):
        np.testing.assert_array_equal(found[name], tuned[name])
    for name in ("layer.q.weight", "conv.weight", "half.weight"):
        old, change = (
            each.astype(np.float64) for each in (base[name], tuned[name].astype("f4") - base[name].astype("f4"))
        )
        naive = old + np.abs(change).mean() * np.where(change >= 0, 1.0, -1.0)
        assert (found[name].dtype, found[name].shape) == (tuned[name].dtype, tuned[name].shape)
        np.testing.assert_allclose(found[name], naive, rtol=1e-3 if name == "half.weight" else 1e-6, atol=1e-7)


def test_a_model_goes_through_a_file_and_back(tmp_path: Path) -> None:
    base, tuned = models()
    delta = compress(base, tuned)
    assert set(delta.matrices) == {"layer.q.weight", "conv.weight", "half.weight"}
    assert set(delta.values) == {"embeddings.weight", "layer.k.bias", "ids", "head.weight"}
    check_merged(base, tuned, merge(base, delta))
    delta.save(tmp_path / "d")
    again = Delta.load(tmp_path / "d")
    assert again.base == delta.base == digest_of(base)
    check_merged(base, tuned, merge(base, again))
    assert report(again) == report(delta)
    # From files, to a file: the same.
    for name, model in (("b", base), ("t", tuned)):
        files.save(tmp_path / name, {each: Tensor.of(values) for each, values in model.items()}, {"of": name})
    with files.File(tmp_path / "b") as old, files.File(tmp_path / "t") as new:
        streamed = compress(old, new)
        assert streamed.base == delta.base
        streamed.save(tmp_path / "d2")
        assert (tmp_path / "d2").read_bytes() == (tmp_path / "d").read_bytes()
        merge_file(old, again, tmp_path / "m")
    with files.File(tmp_path / "m") as found:
        check_merged(base, tuned, files.arrays(found))


def test_bfloat16_models_stay_bfloat16(tmp_path: Path) -> None:
    base, tuned = ({"w": Tensor.of_floats(each["layer.q.weight"], "BF16")} for each in models())
    delta = compress(base, tuned)
    naive = compress_matrix(base["w"].floats(), tuned["w"].floats())
    np.testing.assert_array_equal(delta.matrices["w"].delta.signs, naive.signs)
    merge_file(base, delta, tmp_path / "m")
    with files.File(tmp_path / "m") as found:
        assert found["w"].dtype == "BF16"
        exact = merge(base, delta)["w"]
        assert np.abs(found["w"].floats() - exact).max() <= 2**-8 * np.abs(exact).max()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), st.booleans(), st.integers(0, 30))
def test_options_hold_in_files(
    tmp_path_factory: pytest.TempPathFactory, seed: int, planes: int, per_row: bool, rank: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "options"
    base, tuned = models(seed)
    options = Options(planes=planes, per_row=per_row, rank=rank, exclude=("conv*",))
    delta = compress(base, tuned, options)
    assert "conv.weight" in delta.values
    assert "embeddings.weight" in delta.matrices
    delta.save(path)
    again = Delta.load(path)
    first, second = merge(base, delta), merge(base, again)
    assert all(np.array_equal(first[name], second[name]) for name in tuned)
    for line in report(again).matrices:
        assert (line.planes, line.per_row, line.rank) == (planes, per_row, min(rank, *line.shape))
    if rank == 30:
        np.testing.assert_allclose(first["layer.q.weight"], tuned["layer.q.weight"], atol=1e-5)


def test_inputs_distil_the_scales_of_their_matrix() -> None:
    base, tuned = models()
    inputs = np.random.default_rng(5).standard_normal((50, 20), dtype=np.float32)
    plain, found = compress(base, tuned), compress(base, tuned, inputs={"layer.q.weight": inputs})
    change = tuned["layer.q.weight"] - base["layer.q.weight"]

    def miss(delta: Delta) -> float:
        return float(np.linalg.norm(inputs @ (delta.matrices["layer.q.weight"].delta.dense() - change).T))

    assert miss(found) < miss(plain)
    assert found.matrices["conv.weight"].delta.scales == plain.matrices["conv.weight"].delta.scales
    with pytest.raises(InvalidInput, match=r"'layer.k.weight', which is no matrix that changed"):
        compress(base, tuned, inputs={"layer.k.weight": inputs})
    with pytest.raises(InvalidInput, match=r"'layer.q.weight': inputs have the shape \(50, 19\)"):
        compress(base, tuned, inputs={"layer.q.weight": inputs[:, 1:]})


def test_equal_models_have_a_delta_of_nothing() -> None:
    base, _ = models()
    delta = compress(base, {name: each.copy() for name, each in base.items()})
    assert (delta.matrices, delta.values, report(delta).ratio, report(delta).relative_error) == ({}, {}, 0, 0)
    assert all(np.array_equal(each, base[name]) for name, each in merge(base, delta).items())


def test_a_delta_merges_onto_its_own_base_alone(tmp_path: Path) -> None:
    base, tuned = models()
    delta = compress(base, tuned)
    other = base | {"layer.k.bias": np.nextafter(base["layer.k.bias"], np.float32(9))}
    with pytest.raises(InvalidInput, match=r"the delta was made of the base sha256:.* merge it onto the model"):
        merge(other, delta)
    with pytest.raises(InvalidInput, match="the delta was made of the base"):
        merge_file(other, delta, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    less = {name: each for name, each in base.items() if name != "layer.q.weight"}
    with pytest.raises(InvalidInput, match=r"changes 'layer.q.weight'"):
        merge_file(less, delta, tmp_path / "m")
    # Order and metadata are no part of a model; names, dtypes, shapes and values are.
    assert digest_of(dict(reversed(base.items()))) == delta.base
    assert digest_of(base | {"layer.k.bias": base["layer.k.bias"].reshape(2, 12)}) != delta.base
    assert digest_of(base | {"ids": base["ids"].view(np.uint64)}) != delta.base
    renamed = dict(base)
    renamed["x"] = renamed.pop("ids")
    assert digest_of(renamed) != delta.base


def test_models_that_do_not_go_together_are_refused() -> None:
    base, tuned = models()
    refused: list[tuple[Model, str]] = [
        ({name: each for name, each in tuned.items() if name != "ids"}, "has no 'ids'"),
        (tuned | {"layer.q.weight": tuned["layer.q.weight"].T}, "in the base and"),
        (tuned | {"layer.q.weight": tuned["layer.q.weight"] * np.float32(np.inf)}, "'layer.q.weight' has values that"),
        (tuned | {"layer.k.bias": np.full(24, np.nan, np.float32)}, "'layer.k.bias' has values that"),
    ]
    for model, told in refused:
        with pytest.raises(InvalidInput, match=told):
            compress(base, model)


@pytest.mark.parametrize(
    ("dtype", "largest", "scale", "told"),
    [
        ("F32", 3.4e38, 1e37, "float32's largest"),
        ("BF16", 3.3895314e38, 1e36, "bfloat16's largest"),
        ("F16", 65504.0, 100.0, "float16's 65504"),
    ],
)
def test_sums_that_do_not_fit_their_type_are_refused(
    tmp_path: Path, dtype: str, largest: float, scale: float, told: str
) -> None:
    base = {"w": Tensor.of_floats(np.full((2, 8), largest, np.float32), dtype)}
    plus = MatrixDelta(
        np.full((1, 2, 1), 255, np.uint8),
        np.array([scale], np.float32),
        np.zeros((2, 0), "f4"),
        np.zeros((0, 8), "f4"),
        1,
        0,
    )
    delta = Delta(digest_of(base), {"w": Entry(plus, dtype, (2, 8))})
    with pytest.raises(InvalidInput, match=told):
        merge_file(base, delta, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dtype", "ratio"), [(np.float16, 16), (np.float32, 32)])
def test_one_bit_per_weight_by_the_size_of_the_file(tmp_path: Path, dtype: Any, ratio: int) -> None:
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((1024, 1024), dtype=np.float32).astype(dtype)}
    tuned = {"w": base["w"] + rng.standard_normal((1024, 1024), dtype=np.float32).astype(dtype)}
    files.save(tmp_path / "t", {"w": Tensor.of(tuned["w"])})
    delta = compress(base, tuned)
    delta.save(tmp_path / "d")
    sizes = [(tmp_path / name).stat().st_size for name in "td"]
    # Signs and a scale; what is left is the header, of a few hundred bytes.
    assert sizes[1] - 512 <= 1024 * 1024 // 8 + 4 <= sizes[1]
    assert sizes[0] / sizes[1] > 0.99 * ratio
    assert report(delta).ratio == pytest.approx(ratio, rel=1e-4)


def delta_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    base, tuned = models()
    compress(base, tuned, Options(rank=2)).save(path)
    with files.File(path) as found:
        return {name: Tensor(found[name].dtype, found[name].values.copy()) for name in found}, dict(found.metadata)


def changed(metadata: dict[str, str], name: str, claim: Any) -> dict[str, str]:
    return metadata | {"matrices": json.dumps(json.loads(metadata["matrices"]) | {name: claim})}


Q = "layer.q.weight"
F, U = np.float32, np.uint8
HOSTILE: dict[str, Any] = {
    "no format": lambda t, m: (t, {"base": m["base"]}),
    "another format": lambda t, m: (t, m | {"format": "hllm-bitdelta/2"}),
    "no base": lambda t, m: (t, m | {"base": ""}),
    "matrices are no JSON": lambda t, m: (t, m | {"matrices": "{"}),
    "matrices are deep": lambda t, m: (t, m | {"matrices": "[" * 100_000}),
    "matrices are a list": lambda t, m: (t, m | {"matrices": "[]"}),
    "a matrix without a shape": lambda t, m: (t, changed(m, Q, "F32")),
    "a matrix of integers": lambda t, m: (t, changed(m, Q, ["I32", [16, 20]])),
    "a type that is a list": lambda t, m: (t, changed(m, Q, [["F32"], [16, 20]])),
    "a type that is an object": lambda t, m: (t, changed(m, Q, [{"F32": 1}, [16, 20]])),
    "a matrix of one length": lambda t, m: (t, changed(m, Q, ["F32", [320]])),
    "a matrix of many lengths": lambda t, m: (t, changed(m, Q, ["F32", [1] * 99])),
    "a matrix of another shape": lambda t, m: (t, changed(m, Q, ["F32", [20, 16]])),
    "an empty matrix": lambda t, m: (t, changed(m, Q, ["F32", [0, 20]])),
    "lengths of no numbers": lambda t, m: (t, changed(m, Q, ["F32", ["16", 20]])),
    "huge lengths": lambda t, m: (t, changed(m, Q, ["F32", [2**60, 20]])),
    "a matrix that is not there": lambda t, m: (t, changed(m, "x", ["F32", [16, 20]])),
    "signs are missing": lambda t, m: ({n: v for n, v in t.items() if n != f"{Q}:signs"}, m),
    "signs of another type": lambda t, m: (t | {f"{Q}:signs": Tensor.of(np.ones((1, 16, 3), np.int8))}, m),
    "signs of two lengths": lambda t, m: (t | {f"{Q}:signs": Tensor.of(np.ones((16, 3), U))}, m),
    "no planes": lambda t, m: (t | {f"{Q}:signs": Tensor.of(np.ones((0, 16, 3), U))}, m),
    "too many planes": lambda t, m: (t | {f"{Q}:signs": Tensor.of(np.ones((17, 16, 3), U))}, m),
    "short signs": lambda t, m: (t | {f"{Q}:signs": Tensor.of(np.ones((1, 16, 2), U))}, m),
    "scales of another shape": lambda t, m: (t | {f"{Q}:scales": Tensor.of(np.ones(2, F))}, m),
    "scales are not finite": lambda t, m: (t | {f"{Q}:scales": Tensor.of(np.array([np.nan], F))}, m),
    "norms of another shape": lambda t, m: (t | {f"{Q}:norms": Tensor.of(np.ones(3))}, m),
    "norms are not finite": lambda t, m: (t | {f"{Q}:norms": Tensor.of(np.array([1, np.inf]))}, m),
    "norms below zero": lambda t, m: (t | {f"{Q}:norms": Tensor.of(np.array([1, -1.0]))}, m),
    "half a residual": lambda t, m: ({n: v for n, v in t.items() if n != f"{Q}:left"}, m),
    "residual of two ranks": lambda t, m: (t | {f"{Q}:left": Tensor.of(np.ones((16, 3), F))}, m),
    "residual of one length": lambda t, m: (t | {f"{Q}:right": Tensor.of(np.ones(20, F))}, m),
    "residual is not finite": lambda t, m: (t | {f"{Q}:right": Tensor.of(np.full((2, 20), np.inf, F))}, m),
    "a value is not finite": lambda t, m: (t | {"z:value": Tensor.of(np.array([np.nan], F))}, m),
    "a tensor that belongs to nothing": lambda t, m: (t | {"y": Tensor.of(np.ones(2))}, m),
    "a matrix and a value": lambda t, m: (t | {f"{Q}:value": Tensor.of(np.ones(2))}, m),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_deltas_that_lie_are_refused(tmp_path: Path, name: str) -> None:
    tensors, metadata = HOSTILE[name](*delta_file(tmp_path / "d"))
    files.save(tmp_path / "d", tensors, metadata)
    with pytest.raises(InvalidInput, match=r"d is no delta of hllm-bitdelta/1: |not finite"):
        Delta.load(tmp_path / "d")


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3), st.booleans())
def test_a_damaged_delta_merges_without_harm_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, data: bytes, in_header: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    base, tuned = models()
    compress(base, tuned, Options(rank=1)).save(path)
    whole = bytearray(path.read_bytes())
    at %= int.from_bytes(whole[:8], "little") + 8 if in_header else len(whole)
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    try:
        found = merge(base, Delta.load(path))
    except InvalidInput:
        return
    assert all(np.isfinite(each).all() for each in found.values())
