"""The transparency log's tree in memory: roots, proofs and checkpoints, against pymerkle.

Method. One process and one core; CPU time, so that what else runs on the machine disturbs less. The *bulk root* is that
over raw leaves of 32 bytes, cut and hashed, as an export is verified. *SHA-256 alone* is the same number of hashes over
messages that lie ready, so the quotient is what cutting and putting together cost. Leaves *one by one* go to a
Frontier, as the sequencer does it. pymerkle's InmemoryTree gets fewer leaves: it keeps all, which ours does not.
Proofs are of random leaves in a tree whose nodes are known, and each figure is the mean over many. A checkpoint is
opened again and again with one key, which is what a witness does.

What it does not show. The store, HTTP, and reading from disk: see `receipts.py`.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pymerkle import InmemoryTree, verify_inclusion

from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.checkpoint import Checkpoint, VerifierKey, note, open_checkpoint
from tests.bench.options import Options
from tests.bench.report import Cell, Report, Target, ratios, spread

Times = dict[str, list[float]]


def seconds(work: Callable[[], object]) -> float:
    """CPU time of some work."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def roots(count: int, fewer: int, times: Times) -> None:
    """Leaves per second of each way to a root; that all lead to one is checked."""
    data = os.urandom(32 * count)
    bulk = merkle.BulkRoot()
    times["bulk"].append(count / seconds(lambda: (bulk.update(data), bulk.root())))
    hashed = [merkle.leaf_hash(data[at : at + 32]) for at in range(0, len(data), 32)]
    tree = merkle.Frontier()
    took = seconds(lambda: [tree.append(each) for each in hashed])
    times["one by one"].append(count / took)
    assert tree.root() == bulk.root() == merkle.hash_all(data)
    low, high = [b"\0" + each for each in hashed], [b"\1" + each + each for each in hashed]
    took = seconds(lambda: [sha256(each).digest() for each in low])
    took += seconds(lambda: [sha256(each).digest() for each in high])
    times["alone"].append(count / took)
    leaves = [data[at : at + 32] for at in range(0, 32 * fewer, 32)]
    peer = InmemoryTree()
    took = seconds(lambda: (peer.append_entries(leaves), peer.get_root()))
    times["peer"].append(fewer / took)
    assert peer.get_root() == merkle.hash_all(data[: 32 * fewer])


class Filled:
    """A tree with all of its nodes, and the peer's."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.leaves = [os.urandom(32) for _ in range(size)]
        self.levels = [[merkle.leaf_hash(leaf) for leaf in self.leaves]]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            self.levels.append(merkle.combine(below[: len(below) & ~1]))
        self.root = merkle.hash_all(b"".join(self.leaves))
        self.peer = InmemoryTree()
        self.peer.append_entries(self.leaves)
        assert self.peer.get_root() == self.root

    def node(self, level: int, index: int) -> bytes:
        return self.levels[level][index]

    def measure(self, count: int, random: Random, times: Times) -> None:
        """µs to make and to verify a proof."""
        picked = [random.randrange(self.size) for _ in range(count)]
        made: list[list[bytes]] = []
        took = seconds(lambda: made.extend(merkle.inclusion_proof(index, self.size, self.node) for index in picked))
        times["made"].append(took * 1e6 / count)
        theirs: list[Any] = []
        took = seconds(lambda: theirs.extend(self.peer.prove_inclusion(index + 1, self.size) for index in picked))
        times["made, peer"].append(took * 1e6 / count)
        hashed = [self.levels[0][index] for index in picked]
        found: list[bytes] = []
        work = list(zip(picked, hashed, made, strict=True))
        took = seconds(
            lambda: found.extend(merkle.root_from_inclusion(at, self.size, leaf, path) for at, leaf, path in work)
        )
        times["verified"].append(took * 1e6 / count)
        assert set(found) == {self.root}
        pairs = list(zip(hashed, theirs, strict=True))
        took = seconds(lambda: [verify_inclusion(leaf, self.root, proof) for leaf, proof in pairs])
        times["verified, peer"].append(took * 1e6 / count)


def checkpoints(count: int, times: Times) -> None:
    """µs to open one, and of its signature alone."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    key = VerifierKey("example.com/log", public.public_bytes_raw())
    point = Checkpoint(key.name, 10_000_000, os.urandom(32))
    text, body = note(point, key, private.sign), point.body().encode()
    signature = private.sign(body)
    assert open_checkpoint(text, key) == point
    took = seconds(lambda: [open_checkpoint(text, key) for _ in range(count)])
    times["opened"].append(took * 1e6 / count)
    took = seconds(lambda: [public.verify(signature, body) for _ in range(count)])
    times["its signature"].append(took * 1e6 / count)


def run(options: Options) -> Report:
    """Rounds of each part in turn."""
    times: Times = defaultdict(list)
    random = Random(1)
    filled = Filled(options.size(100_000, 300))
    for number in range(options.rounds):
        roots(options.size(1_000_000, 10_000), options.size(100_000, 500), times)
        filled.measure(options.size(2000, 20), random, times)
        checkpoints(options.size(2000, 20), times)
        options.say(f"round {number + 1} of {options.rounds}")
    return report(times)


def report(times: Times) -> Report:
    """A row for each part."""
    made = Report("The log's tree in memory", ["", "ours", "beside", "ours / beside"])
    rows: Sequence[tuple[str, str, str]] = [
        ("bulk root, leaves/s (SHA-256 alone)", "bulk", "alone"),
        ("bulk root, leaves/s (pymerkle InmemoryTree)", "bulk", "peer"),
        ("inclusion proof made, 100,000 leaves, µs (pymerkle)", "made", "made, peer"),
        ("inclusion proof verified, µs (pymerkle)", "verified", "verified, peer"),
        ("checkpoint opened, µs (its signature alone)", "opened", "its signature"),
    ]
    for name, ours, beside in rows:
        cells: list[Cell] = [spread(times[ours]), spread(times[beside]), ratios(times[ours], times[beside])]
        made.rows.append([name, *cells])
    made.rows.insert(2, ["hashes appended one by one, leaves/s", spread(times["one by one"]), None, None])
    best = spread([max(times["bulk"])])
    made.targets.append(Target("bulk root, best round, leaves/s", best, 400_000, at_most=False))
    return made
