"""The delta of a whole model, and its file.

A delta file is a safetensors file. For a matrix N it has ``N:signs`` U8 (planes, rows, ⌈columns/8⌉), ``N:scales`` F32
(planes) or (planes, rows), ``N:norms`` F64 (2: ‖Δ‖², ‖Δ - kept‖²) and, with a residual, ``N:left`` and ``N:right`` F32;
what is kept as it is in the fine-tune is ``N:value``. Metadata: ``format``, ``base`` (the base's digest) and
``matrices``, JSON of each matrix's dtype and shape.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final, NoReturn

import numpy as np

from hllm.bitdelta import safetensors
from hllm.bitdelta.bits import row_bytes
from hllm.bitdelta.matrix import MatrixDelta
from hllm.bitdelta.tensors import WEIGHTS, Tensor
from hllm.errors import InvalidInput

FORMAT: Final = "hllm-bitdelta/1"


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """A tensor of two or more lengths as a matrix: the last length is the columns (the inputs of a linear layer)."""
    return prod(shape[:-1]), shape[-1]


@dataclass(frozen=True, slots=True)
class Entry:
    """A changed matrix: its delta, and dtype and shape of the tensor that it makes."""

    delta: MatrixDelta
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """What a fine-tune changed of the model with the digest ``base``.

    ``matrices`` are kept by their BitDelta, ``values`` as they are in the fine-tune; the rest is as in the base.
    """

    base: str
    matrices: Mapping[str, Entry] = field(default_factory=dict)
    values: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(each.delta.nbytes for each in self.matrices.values()) + sum(
            each.nbytes for each in self.values.values()
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the delta as ``path``, which is replaced when the new file is whole."""
        tensors: dict[str, Tensor] = {}
        for name, entry in self.matrices.items():
            delta = entry.delta
            tensors[f"{name}:signs"] = Tensor.of(delta.signs)
            tensors[f"{name}:scales"] = Tensor.of(delta.scales)
            tensors[f"{name}:norms"] = Tensor.of(np.array([delta.norm2, delta.error2]))
            if delta.rank:
                tensors[f"{name}:left"], tensors[f"{name}:right"] = Tensor.of(delta.left), Tensor.of(delta.right)
        tensors |= {f"{name}:value": each for name, each in self.values.items()}
        shapes = {name: [entry.dtype, list(entry.shape)] for name, entry in self.matrices.items()}
        metadata = {"format": FORMAT, "base": self.base, "matrices": json.dumps(shapes, separators=(",", ":"))}
        safetensors.save(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Delta:
        """The delta in a file; its parts are views of the mapped file.

        Raises:
            InvalidInput: the file is no delta, or its parts do not fit each other.
        """
        return _Loader(safetensors.File(path)).delta()


class _Loader:
    """Checks every claim of a file before anything is calculated with it."""

    def __init__(self, file: safetensors.File) -> None:
        self._file = file
        self._left = set(file)

    def delta(self) -> Delta:
        metadata = self._file.metadata
        if metadata.get("format") != FORMAT:
            self._refuse(f"its metadata says format {metadata.get('format')!r}, and {FORMAT!r} is known")
        base = metadata.get("base", "")
        if not base.startswith("sha256:") or len(base) != 71:
            self._refuse("its metadata does not say which base it is of")
        try:
            shapes = json.loads(metadata.get("matrices", ""))
        except (ValueError, RecursionError):
            self._refuse("its list of matrices is not JSON")
        if not isinstance(shapes, dict):
            self._refuse("its list of matrices is no object")
        matrices = {name: self._entry(name, claim) for name, claim in shapes.items()}
        values = {name.removesuffix(":value"): self._file[name] for name in self._left if name.endswith(":value")}
        for name, value in values.items():
            if value.dtype in WEIGHTS:
                value.floats(f"{name!r} of the delta")
        if unknown := {name for name in self._left if not name.endswith(":value")}:
            self._refuse(f"tensor {min(unknown)!r} belongs to nothing")
        if both := values.keys() & matrices.keys():
            self._refuse(f"{min(both)!r} is there as a matrix and as a value")
        return Delta(base, matrices, dict(sorted(values.items())))

    def _entry(self, name: str, claim: Any) -> Entry:
        if not isinstance(claim, list) or list(map(type, claim)) != [str, list] or claim[0] not in WEIGHTS:
            self._refuse(f"matrix {name!r} must have a dtype of weights and a shape")
        lengths = claim[1]
        if not 2 <= len(lengths) <= safetensors.RANK_MAX or not all(type(n) is int and 0 < n < 2**48 for n in lengths):
            self._refuse(f"matrix {name!r} has no shape of two or more lengths")
        rows, columns = as_matrix(tuple(lengths))
        signs = self._part(name, "signs", "U8")
        planes = signs.shape[0] if len(signs.shape) == 3 else 0
        if not 1 <= planes <= 16 or signs.shape[1:] != (rows, row_bytes(columns)):
            self._refuse(f"the signs of {name!r} have the shape {signs.shape}, for a matrix of {rows} by {columns}")
        scales = self._part(name, "scales", "F32")
        if scales.shape not in {(planes,), (planes, rows)}:
            self._refuse(f"the scales of {name!r} have the shape {scales.shape}, for {planes} planes of {rows} rows")
        norms = self._part(name, "norms", "F64")
        if norms.shape != (2,) or not np.isfinite(norms.values).all() or (norms.values < 0).any():
            self._refuse(f"the norms of {name!r} are not two finite numbers that are not negative")
        left, right = (Tensor("F32", np.zeros(shape, np.float32)) for shape in ((rows, 0), (0, columns)))
        if f"{name}:left" in self._left or f"{name}:right" in self._left:
            left, right = self._part(name, "left", "F32"), self._part(name, "right", "F32")
            rank = right.shape[0] if len(right.shape) == 2 else -1
            if left.shape != (rows, rank) or right.shape != (rank, columns):
                self._refuse(f"the residual of {name!r} is {left.shape} by {right.shape}, for {rows} by {columns}")
        for part in (scales, left, right):
            part.floats(f"{name!r} of the delta")  # which looks for values that are not finite
        delta = MatrixDelta(
            signs.values, scales.values, left.values, right.values, float(norms.values[0]), float(norms.values[1])
        )
        return Entry(delta, claim[0], tuple(lengths))

    def _part(self, name: str, part: str, dtype: str) -> Tensor:
        full = f"{name}:{part}"
        if full not in self._left:
            self._refuse(f"{full!r} is missing")
        found = self._file[full]
        if found.dtype != dtype:
            self._refuse(f"{full!r} is {found.dtype}, not {dtype}")
        self._left.discard(full)
        return found

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidInput(f"{self._file.path.name} is no delta of {FORMAT}: {safetensors.brief(why)}")
