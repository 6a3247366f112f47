"""The adapters example: its tokenizer and its forward pass, which a user serves with, against their definitions.

`train.py` checks both again, on all of its texts, against the tokenizers library and PyTorch's layers.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "adapters"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_adapters_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encoder() -> ModuleType:
    return load("encoder")


PIECES = "[PAD] [UNK] [CLS] [SEP] un ##aff ##able ##ab want ##want ##ed wa run ##ning , ! cafe 中 $ don ' t `"
VOCABULARY = PIECES.split()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable", "un ##aff ##able"),  # the paper's own case: longest first
        ("UNwanted,  running!", "un ##want ##ed , run ##ning !"),
        ("Café", "cafe"),
        ("café\u0301", "cafe"),
        ("runx run", "[UNK] run"),  # a rest that is no piece makes the whole word unknown
        ("中中", "中 中"),
        ("$run``", "$ run ` `"),
        ("don't", "don ' t"),
        ("run\u0000\ufffd\u200bning", "run ##ning"),
        ("\trun\n\u00a0ning", "run [UNK]"),
        ("x" * 101, "[UNK]"),
        ("", ""),
    ],
)
def test_text_becomes_the_longest_known_pieces(encoder: ModuleType, text: str, pieces: str) -> None:
    numbers = encoder.WordPiece(VOCABULARY)(text)
    assert [VOCABULARY[number] for number in numbers] == ["[CLS]", *pieces.split(), "[SEP]"]


def test_long_texts_are_cut(encoder: ModuleType) -> None:
    numbers = encoder.WordPiece(VOCABULARY)("run " * 50, 6)
    assert [VOCABULARY[number] for number in numbers] == ["[CLS]", *["run"] * 4, "[SEP]"]


def weights(width: int = 24, inner: int = 48, layers: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return (0.5 * rng.standard_normal(shape)).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": values(30, width),
        "embeddings.position_embeddings.weight": values(16, width),
        "embeddings.token_type_embeddings.weight": values(2, width),
    }
    shapes = {"embeddings.LayerNorm": (width,)}
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        shapes |= {f"{name}.attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        shapes |= {f"{name}.attention.output.dense": (width, width), f"{name}.attention.output.LayerNorm": (width,)}
        shapes |= {f"{name}.intermediate.dense": (inner, width), f"{name}.output.dense": (width, inner)}
        shapes[f"{name}.output.LayerNorm"] = (width,)
    for name, shape in shapes.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = values(*shape), values(shape[0])
    return found


def by_definition(model: dict[str, np.ndarray], text: list[int], layers: int = 2, heads: int = 12) -> np.ndarray:
    """BERT's forward pass of one text, position by position and head by head, in float64."""
    w = {name: each.astype(np.float64) for name, each in model.items()}

    def normalized(x: np.ndarray, name: str) -> np.ndarray:
        return (x - x.mean()) / math.sqrt(x.var() + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    x = [
        normalized(
            w["embeddings.word_embeddings.weight"][number]
            + w["embeddings.position_embeddings.weight"][at]
            + w["embeddings.token_type_embeddings.weight"][0],
            "embeddings.LayerNorm",
        )
        for at, number in enumerate(text)
    ]
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        q, k, v = ([linear(each, f"{name}.attention.self.{part}") for each in x] for part in ("query", "key", "value"))
        size = len(q[0]) // heads
        mixed = []
        for mine in q:
            out = np.zeros(len(mine))
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                share = np.exp([mine[part] @ other[part] / math.sqrt(size) for other in k])
                share /= share.sum()
                out[part] = sum(each * other[part] for each, other in zip(share, v, strict=True))
            mixed.append(linear(out, f"{name}.attention.output.dense"))
        x = [normalized(a + b, f"{name}.attention.output.LayerNorm") for a, b in zip(x, mixed, strict=True)]
        inner = [linear(each, f"{name}.intermediate.dense") for each in x]
        inner = [np.array([0.5 * z * (1 + math.erf(z / math.sqrt(2))) for z in each]) for each in inner]
        x = [
            normalized(a + linear(b, f"{name}.output.dense"), f"{name}.output.LayerNorm")
            for a, b in zip(x, inner, strict=True)
        ]
    return np.mean(x, axis=0)


def test_embeddings_are_berts_by_definition_and_padding_changes_nothing(encoder: ModuleType) -> None:
    model, texts = weights(), [[2, 5, 7, 3], [2, 9, 3], [2, 8, 8, 11, 29, 1, 3]]
    found = encoder.embed(model, texts)
    expected = np.array([by_definition(model, text) for text in texts])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_texts_have_one_label_each_and_none_is_in_both_parts() -> None:
    module = load("texts")
    module.PARTS = {"python": ("email", "asyncio")}
    data = module.collect()["python"]
    train, test = ([text for text, _ in data[part]] for part in ("train", "test"))
    assert len(set(train) | set(test)) == len(train) + len(test)
    assert (len(train), len(test)) == (120, 60)
    assert sorted({label for _, label in data["train"]}) == [0, 1]
    assert module.collect()["python"] == data
