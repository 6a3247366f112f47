"""The safetensors reader and writer, against safetensors' own, and against files that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hllm.bitdelta.safetensors import File, Writer, arrays, save
from hllm.bitdelta.tensors import DTYPES, Tensor
from hllm.errors import InvalidInput

TYPES = [
    np.bool_,
    *[np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)],
    np.float16,
    np.float32,
    np.float64,
]


def made(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda n: n != "__metadata__")
some_arrays = st.builds(
    lambda dtype, shape, seed: np.asarray(np.random.default_rng(seed).integers(0, 2, shape) * 37, dtype),
    st.sampled_from(TYPES),
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.integers(0, 99),
)
models = st.dictionaries(names, some_arrays, max_size=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "m.safetensors"


@settings(max_examples=40, deadline=None)
@given(models, st.dictionaries(names, names, max_size=3))
def test_what_we_write_their_library_reads(path: Path, model: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save(path, {name: Tensor.of(each) for name, each in model.items()}, metadata)
    found = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "numpy") as file:
        assert (file.metadata() or {}) == metadata
    assert found.keys() == model.keys()
    for name, each in model.items():
        assert (found[name].dtype, found[name].shape) == (each.dtype, each.shape)
        np.testing.assert_array_equal(found[name], each)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
    with File(path) as ours:
        assert ours.metadata == metadata
        assert ours.keys() == model.keys()


@settings(max_examples=40, deadline=None)
@given(models, st.dictionaries(names, names, max_size=3))
def test_what_their_library_writes_we_read(path: Path, model: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    # Of a model and metadata that are both empty it writes a header that its own reader refuses.
    safetensors.numpy.save_file(model, path, metadata or None)
    with File(path) as found:
        assert found.metadata == metadata
        assert len(found) == len(model)
        assert arrays(found).keys() == model.keys()
        for name, each in model.items():
            tensor = found[name]
            assert (tensor.values.dtype, tensor.shape, tensor.nbytes) == (each.dtype, each.shape, each.nbytes)
            np.testing.assert_array_equal(tensor.values, each)


def test_bfloat16_widens_exactly_and_rounds_to_nearest_even(path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, 0.0, -0.0, 1e-40, 2**-133], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    save(path, {"w": Tensor("BF16", bits)})
    with File(path) as found:
        widened = arrays(found)["w"]
    np.testing.assert_array_equal(widened.view(np.uint32), bits.astype(np.uint32) << 16)
    np.testing.assert_array_equal(Tensor.of_floats(widened, "BF16").values, bits)
    # One bfloat16 step at 1 is 2**-7: halves go to the even neighbour, anything more away from it.
    steps = np.array([0.25, 0.5, 0.5001, 0.75, 1.25, 1.5, 1.75, 2.5], np.float32)
    rounded = Tensor.of_floats(1 + steps * np.float32(2**-7), "BF16").floats()
    np.testing.assert_array_equal((rounded - 1) * 2**7, [0, 0, 1, 1, 1, 2, 2, 2])


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_rounding_finds_a_nearest_neighbour_or_says_that_there_is_none(value: float) -> None:
    given_value = np.array([value], np.float32)
    for dtype, largest in (("BF16", float.fromhex("0x1.fep127")), ("F16", 65504.0)):
        try:
            found = float(Tensor.of_floats(given_value, dtype).floats()[0])
        except InvalidInput:
            assert abs(value) > largest
            continue
        near = np.spacing(np.float16(value)) if dtype == "F16" and abs(value) <= largest else abs(value) * 2**-7
        assert abs(found - value) <= max(float(near) / 2, 2**-134)
        assert abs(found) <= largest


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "short": b"\0\0\0",
    "no header": made(b""),
    "header longer than the file": made({}, length=1 << 40),
    "header length of all ones": made({}, length=2**64 - 1),
    "no JSON": made(b"{"),
    "no object": made(b"[]"),
    "no UTF-8": made(b'{"\xff":1}'),
    "deep": made(b"[" * 200_000),
    "deep in an object": made(b'{"a":' * 200_000),
    "space first": made(b' {"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "twice": made(
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    ),
    "huge number": made(b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}'),
    "infinity": made(b'{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,0]}}'),
    "NaN": made(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,0]}}'),
    "entry is a list": made({"a": []}),
    "field is missing": made({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8),
    "field too many": made({"a": entry() | {"x": 1}}, b"\0" * 8),
    "unknown dtype": made({"a": entry("F7")}, b"\0" * 8),
    "dtype is a list": made({"a": entry(["F32"])}, b"\0" * 8),
    "shape is a number": made({"a": entry(shape=2)}, b"\0" * 8),
    "length below zero": made({"a": entry(shape=[-1, -2])}, b"\0" * 8),
    "length is a truth": made({"a": entry(shape=[True, 2])}, b"\0" * 8),
    "length is a float": made({"a": entry(shape=[2.0])}, b"\0" * 8),
    "too many lengths": made({"a": entry(shape=[1] * 65, offsets=[0, 4])}, b"\0" * 4),
    "product wraps in 64 bits": made({"a": entry(shape=[2**62, 4], offsets=[0, 0])}),
    "length beyond 63 bits": made({"a": entry(shape=[2**64], offsets=[0, 0])}),
    "empty and too large": made({"a": entry(shape=[0, 2**62, 2**62], offsets=[0, 0])}),
    "three offsets": made({"a": entry(offsets=[0, 8, 8])}, b"\0" * 8),
    "offsets turned round": made({"a": entry(offsets=[8, 0])}, b"\0" * 8),
    "offset below zero": made({"a": entry(offsets=[-8, 0])}, b"\0" * 8),
    "beyond the end": made({"a": entry(offsets=[0, 8])}, b"\0" * 7),
    "bytes that belong to nothing": made({"a": entry()}, b"\0" * 9),
    "data without tensors": made({}, b"\0"),
    "hole": made({"a": entry(), "b": entry(offsets=[9, 17])}, b"\0" * 17),
    "overlap": made({"a": entry(), "b": entry(offsets=[4, 12])}, b"\0" * 12),
    "same bytes twice": made({"a": entry(), "b": entry()}, b"\0" * 8),
    "size and shape differ": made({"a": entry(shape=[3])}, b"\0" * 8),
    "metadata of numbers": made({"__metadata__": {"a": 1}}),
    "metadata is a list": made({"__metadata__": []}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_lie_are_refused_with_the_reason(path: Path, name: str) -> None:
    path.write_bytes(HOSTILE[name])
    with pytest.raises(InvalidInput, match=r"m\.safetensors is no safetensors file: "):
        File(path)


def test_a_name_of_any_length_makes_no_message_of_that_length(path: Path) -> None:
    path.write_bytes(made({"a" * 1_000_000: entry(shape=[3])}, b"\0" * 8))
    with pytest.raises(InvalidInput, match="is no safetensors file: tensor 'aaa") as refused:
        File(path)
    assert len(str(refused.value)) < 1_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([*DTYPES, "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)
sizes = st.integers(0, 20) | json_values
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(list(DTYPES)) | json_values,
        "shape": st.lists(sizes, max_size=3) | json_values,
        "data_offsets": st.lists(sizes, min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), entries | json_values, max_size=3)
bytes_of_files = st.one_of(
    st.builds(made, headers, st.binary(max_size=24)),
    st.builds(made, headers, st.binary(max_size=24), st.integers(0, 2**64 - 1) | st.integers(0, 300)),
    st.binary(max_size=64),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bytes_of_files)
def test_any_file_is_read_whole_or_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        with File(path) as found:
            # What is read covers the file to the last byte, and no byte twice.
            header = int.from_bytes(data[:8], "little")
            assert sum(found[name].nbytes for name in found) == len(data) - 8 - header
    except InvalidInput:
        pass


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6))
def test_a_damaged_file_is_read_or_refused_as_by_their_library(path: Path, at: int, byte: int, cut: int) -> None:
    safetensors.numpy.save_file({"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(2, "i8")}, path)
    whole = bytearray(path.read_bytes())
    whole[at % len(whole)] = byte
    data = bytes(whole) if cut % 3 else bytes(whole[: cut % len(whole)])
    path.write_bytes(data)
    try:
        theirs = safetensors.deserialize(data)
    except safetensors.SafetensorError:
        theirs = None
    try:
        with File(path) as file:
            ours = {name: bytes(file[name].data()) for name in file}
    except InvalidInput:
        return  # ours may be stricter: on names that are there twice, for one
    assert theirs is not None
    assert ours == {name: bytes(each["data"]) for name, each in theirs}


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(path, {"a": Tensor.of(np.ones(3, np.float32))})
    before = path.read_bytes()
    plan = {"a": ("F32", (3,)), "b": ("F32", (1,))}
    with pytest.raises(InvalidInput, match="1 tensors were not written"), Writer(path, plan) as writer:
        writer.add("a", Tensor.of(np.zeros(3, np.float32)))
    with pytest.raises(InvalidInput, match="'b' is not the one"), Writer(path, plan) as writer:
        writer.add("b", Tensor.of(np.zeros(1, np.float32)))
    with pytest.raises(InvalidInput, match="not what was announced"), Writer(path, plan) as writer:
        writer.add("a", Tensor.of(np.zeros(4, np.float32)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidInput, match="keeps that name"):
        Writer(path, {"__metadata__": ("F32", (1,))})
    with pytest.raises(InvalidInput, match="complex128 has no place"):
        Tensor.of(np.ones(2, np.complex128))
