"""`hzc adapter`: files alone, no platform."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.cli import Hzc

Model = dict[str, np.ndarray]


@pytest.fixture
def hzc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hzc:
    monkeypatch.chdir(tmp_path)
    return Hzc({"HZC_HOME": str(tmp_path / "home")})


@pytest.fixture
def base() -> Model:
    rng = np.random.default_rng(0)
    shapes = {"q.weight": (16, 24), "embeddings.weight": (9, 8), "q.bias": (16,), "still.weight": (8, 8)}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


@pytest.fixture
def tuned(base: Model) -> Model:
    rng = np.random.default_rng(1)
    changed = ("q.weight", "embeddings.weight", "q.bias")
    return base | {name: base[name] + rng.standard_normal(base[name].shape, dtype=np.float32) for name in changed}


@pytest.fixture(autouse=True)
def _files(hzc: Hzc, base: Model, tuned: Model) -> None:
    save_file(base, "base.safetensors")
    save_file(tuned, "tuned.safetensors")


def compressed(hzc: Hzc, *more: str) -> None:
    hzc("adapter", "compress", "base.safetensors", "tuned.safetensors", "-o", "delta.safetensors", *more)


def test_a_fine_tune_is_compressed_reported_and_merged(hzc: Hzc, base: Model, tuned: Model) -> None:
    compressed(hzc)
    shown = hzc("adapter", "report", "delta.safetensors").stdout
    change = (tuned["q.weight"] - base["q.weight"]).astype(np.float64)
    scale, signs = np.abs(change).mean(), np.where(change >= 0, 1.0, -1.0)
    error = np.linalg.norm(change - scale * signs) / np.linalg.norm(change)
    (line,) = [line.split() for line in shown.splitlines() if line.startswith("q.weight")]
    assert line == ["q.weight", "16x24", "1", "one", "0", "1.5", "KiB", "52", "B", f"{error:.3f}"]
    assert "kept whole  2 tensors, 352 B" in shown
    assert hzc("adapter", "merge", "base.safetensors", "delta.safetensors", "-o", "merged.safetensors").stdout == (
        "merged.safetensors\n"
    )
    merged = load_file("merged.safetensors")
    np.testing.assert_allclose(merged["q.weight"], base["q.weight"] + scale * signs, rtol=1e-6, atol=1e-7)
    for name in ("embeddings.weight", "q.bias", "still.weight"):
        np.testing.assert_array_equal(merged[name], tuned[name])


def test_answers_for_programs(hzc: Hzc) -> None:
    words = ("adapter", "compress", "base.safetensors", "tuned.safetensors", "-o", "d", "--output", "json")
    made = json.loads(hzc(*words).stdout)
    shown = hzc.json("adapter", "report", "d")
    assert made == shown
    assert (shown["tuned_bytes"], shown["delta_bytes"], shown["whole_bytes"]) == (16 * 24 * 4, 16 * 24 // 8 + 4, 352)
    assert shown["size"] == Path("d").stat().st_size
    merged = json.loads(hzc("adapter", "merge", "base.safetensors", "d", "-o", "m", "--output", "json").stdout)
    assert merged == {"file": "m", "base": shown["base"], "size": Path("m").stat().st_size}


def test_options_reach_the_delta(hzc: Hzc) -> None:
    save_file({"q.weight": np.random.default_rng(2).standard_normal((40, 24), dtype=np.float32)}, "inputs")
    compressed(hzc, "--bits", "3", "--per-row", "--rank", "2", "--exclude", "still*", "--inputs", "inputs")
    lines = {line["name"]: line for line in hzc.json("adapter", "report", "delta.safetensors")["matrices"]}
    assert set(lines) == {"q.weight", "embeddings.weight"}
    assert (lines["q.weight"]["bits"], lines["q.weight"]["per_row"], lines["q.weight"]["rank"]) == (3, True, 2)
    compressed(hzc, "--force")
    plain = hzc.json("adapter", "report", "delta.safetensors")["matrices"][0]
    assert plain["relative_error"] > 2 * lines["q.weight"]["relative_error"]
    compressed(hzc, "--force", "--inputs", "inputs")
    assert hzc.json("adapter", "report", "delta.safetensors")["matrices"][0]["relative_error"] > plain["relative_error"]


def test_nothing_is_overwritten_unless_asked(hzc: Hzc) -> None:
    compressed(hzc)
    before = Path("delta.safetensors").read_bytes()
    words = ("adapter", "compress", "base.safetensors", "tuned.safetensors", "-o", "delta.safetensors")
    refused = hzc(*words, "--bits", "2", code=2)
    assert "is there already" in refused.stderr
    assert Path("delta.safetensors").read_bytes() == before
    hzc(*words, "--bits", "2", "--force")
    assert len(Path("delta.safetensors").read_bytes()) > len(before)


def test_another_base_is_refused_and_leaves_nothing(hzc: Hzc) -> None:
    compressed(hzc)
    there = {each.name for each in Path().iterdir()}
    refused = hzc("adapter", "merge", "tuned.safetensors", "delta.safetensors", "-o", "merged", code=2)
    assert "the delta was made of the base sha256:" in refused.stderr
    assert {each.name for each in Path().iterdir()} == there


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("compress base.safetensors broken -o x", "broken is no safetensors file"),
        ("compress base.safetensors other -o x", "the fine-tune has no"),
        ("compress base.safetensors tuned.safetensors -o x --inputs other", "is no matrix that changed"),
        ("compress base.safetensors tuned.safetensors -o x --bits 0", "--bits"),
        ("compress base.safetensors missing -o x", "missing"),
        ("compress base.safetensors tuned.safetensors", "--out"),
        ("compress base.safetensors tuned.safetensors -o gone/x", "gone"),
        ("merge base.safetensors tuned.safetensors -o x", "is no delta of hllm-bitdelta/1"),
        ("merge base.safetensors broken -o x", "broken is no safetensors file"),
        ("report base.safetensors", "is no delta of hllm-bitdelta/1"),
        ("report broken", "broken is no safetensors file"),
    ],
)
def test_what_is_no_model_or_delta_is_told(hzc: Hzc, words: str, told: str) -> None:
    Path("broken").write_bytes(b"\xff" * 40)
    save_file({"other.weight": np.ones((2, 2), np.float32)}, "other")
    assert told in " ".join(hzc("adapter", *words.split(), code=2).stderr.split())
    assert not Path("x").exists()


def test_models_are_read_matrix_by_matrix(hzc: Hzc) -> None:
    rng = np.random.default_rng(0)
    matrices = {f"{number}.weight": rng.standard_normal((512, 512), dtype=np.float32) for number in range(24)}
    save_file(matrices, "large")
    save_file(
        {name: each + rng.standard_normal((512, 512), dtype=np.float32) for name, each in matrices.items()}, "more"
    )
    del matrices
    tracemalloc.start()
    try:
        hzc("adapter", "compress", "large", "more", "-o", "d")
        hzc("adapter", "merge", "large", "d", "-o", "m")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 24 matrices of 1 MiB: the delta of all of them, and no more than a few at a time.
    assert peak < 9 * 1024 * 1024
    assert Path("m").stat().st_size > 24 * 1024 * 1024


def test_the_command_loads_numpy_only_to_work() -> None:
    code = "import sys; from hanzo_compute_host.cli.commands import adapter; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
