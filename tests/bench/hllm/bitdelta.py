"""BitDelta beside PyTorch on the CPU: compressing, merging, applying, and the memory of many adapters.

    python -m tests.bench.hllm.bitdelta [--side 4096] [--rounds 5]

Method. One process (PyTorch's venv, see peers.py), one thread on each side, CPU time, float32. The sides take turns
and the best round of each counts. The baseline is the paper's method (arXiv 2402.10193) as it is usually written for
tensors: signs become 32-bit words by shifts and a sum, and come back by shifts and masks; the scale is a mean. It was
made for GPUs, so it is an easy mark: ``packbits`` is the same in plain numpy, with numpy's own packing. Each side's
result is checked against the other's before anything is timed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hllm.bitdelta import Adapters, Delta, Entry, MatrixDelta, apply, compress_matrix, digest_of, merge_matrix
from tests.bench.hllm.peers import run

Call = Callable[[], Any]


def best(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU of the best round of each, which take turns."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            found[name] = min(found[name], (time.process_time() - start) * 1e3)
    return found


def torch_sides(base: np.ndarray, tuned: np.ndarray) -> tuple[Call, Callable[[Any], Any]]:
    """The paper's method in PyTorch: compress to (words, scale), and merge."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    old, new = torch.from_numpy(base), torch.from_numpy(tuned)
    rows, columns = old.shape
    shifts = torch.arange(32, dtype=torch.int64)

    def compress() -> tuple[Any, Any]:
        change = new - old
        bits = (change >= 0).reshape(rows, columns // 32, 32).to(torch.int64)
        return (bits << shifts).sum(dim=-1).to(torch.int32), change.abs().mean()

    def merge(delta: tuple[Any, Any]) -> Any:
        words, scale = delta
        bits = (words.to(torch.int64).unsqueeze(-1) >> shifts) & 1
        return old + scale * (bits.reshape(rows, columns).to(torch.float32) * 2 - 1)

    return compress, merge


def numpy_sides(base: np.ndarray, tuned: np.ndarray) -> tuple[Call, Callable[[Any], np.ndarray]]:
    """The same in plain numpy."""

    def compress() -> tuple[np.ndarray, np.float32]:
        change = tuned - base
        return np.packbits(change >= 0, axis=1), np.abs(change).mean()

    def merge(delta: tuple[np.ndarray, np.float32]) -> np.ndarray:
        signs = np.unpackbits(delta[0], axis=1).astype(np.float32) * np.float32(2) - np.float32(1)
        return base + delta[1] * signs

    return compress, merge


def pair(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A base matrix and a fine-tune of it."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((side, side), dtype=np.float32)
    return base, base + np.float32(0.01) * rng.standard_normal((side, side), dtype=np.float32)


def beside_torch(side: int, rounds: int) -> None:
    """Compressing and merging."""
    base, tuned = pair(side)
    ours = compress_matrix(base, tuned)
    sides = {"torch": torch_sides(base, tuned), "packbits": numpy_sides(base, tuned)}
    expected = merge_matrix(base, ours)
    for name, (compress, merge) in sides.items():
        difference = float(np.abs(np.asarray(merge(compress())) - expected).max())
        assert difference < 1e-5, f"{name} merges something else: {difference}"
    deltas = {name: compress() for name, (compress, _) in sides.items()}
    made = best(
        {"ours": lambda: compress_matrix(base, tuned), **{name: each[0] for name, each in sides.items()}}, rounds
    )
    out = np.empty_like(base)
    merged = best(
        {
            "ours": lambda: merge_matrix(base, ours),
            "ours, in place": lambda: merge_matrix(base, ours, out),
            **{name: lambda m=each[1], d=deltas[name]: m(d) for name, each in sides.items()},
        },
        rounds,
    )
    for what, times in (("compress", made), ("merge", merged)):
        told = ", ".join(f"{name} {ms:.1f} ms ({ms / times['ours']:.2f}x)" for name, ms in times.items())
        print(f"{side} x {side} {what}: {told}", flush=True)


def products(side: int, rounds: int) -> None:
    """Applying without a merged copy, beside the product with one."""
    base, tuned = pair(side)
    delta = compress_matrix(base, tuned)
    merged = merge_matrix(base, delta)
    for count in (1, 8, 64):
        x = np.random.default_rng(count).standard_normal((count, side), dtype=np.float32)
        ms = best({"apply": lambda x=x: apply(x, base, delta), "dense": lambda x=x: x @ merged.T}, rounds * 3)
        print(
            f"{side} x {side} apply to {count}: {ms['apply']:.2f} ms, merged {ms['dense']:.2f} ms "
            f"({ms['dense'] / ms['apply']:.2f}x)",
            flush=True,
        )


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def memory(side: int, counts: tuple[int, ...] = (1, 8, 32)) -> None:
    """Memory that adapters take, by the process's resident size."""
    base, tuned = pair(side)
    model, digest = {"w": base}, digest_of({"w": base})
    deltas: list[MatrixDelta] = []
    compress_matrix(base, tuned)  # what the allocator keeps is there before
    start = resident()
    for count in counts:
        while len(deltas) < count:
            deltas.append(compress_matrix(base, tuned))
        adapters = Adapters(
            model,
            {str(number): Delta(digest, {"w": Entry(each, "F32", base.shape)}) for number, each in enumerate(deltas)},
        )
        grown = resident() - start
        whole = count * base.nbytes
        print(
            f"{count} adapters of {side} x {side}: resident +{grown / 2**20:.1f} MiB, "
            f"{(adapters.nbytes - base.nbytes) / 2**20:.1f} MiB by count; merged copies {whole / 2**20:.0f} MiB "
            f"({whole / (adapters.nbytes - base.nbytes):.1f}x)",
            flush=True,
        )


def main(arguments: list[str]) -> None:
    """Measure, in the peer's venv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096, help="of the square matrices, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help="this is the peer's venv already")
    options = parser.parse_args(arguments)
    if not options.inside:
        run("torch", "tests.bench.hllm.bitdelta", [*arguments, "--inside"])
        return
    # First, while nothing that was freed is there to be used again.
    memory(options.side)
    beside_torch(options.side, options.rounds)
    products(options.side, options.rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
