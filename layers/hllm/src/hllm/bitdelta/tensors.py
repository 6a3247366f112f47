"""Tensors as model files hold them: bytes, a dtype by the file's name for it, a shape.

numpy has no bfloat16, so a tensor keeps its bytes; ``floats`` widens them to float32, which holds every bfloat16 and
float16 exactly, and ``Tensor.of_floats`` rounds back to nearest, ties to even.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hllm.errors import InvalidInput

Floats = NDArray[np.float32]

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
"""safetensors' names; numpy's type of the same size, and of the same meaning where numpy has it."""

OPAQUE: Final = frozenset({"BF16", "F8_E4M3", "F8_E5M2"})
"""What numpy cannot calculate with: those arrays are bit patterns."""
WEIGHTS: Final = frozenset({"F32", "F16", "BF16"})
"""What a delta can be taken of."""

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items() if name not in OPAQUE}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor.

    ``values`` is an array of ``shape`` of the numpy type that ``DTYPES`` has for ``dtype``; it may be a view of a file.
    """

    dtype: str
    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """Bytes of its values in a file."""
        return self.values.nbytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> Tensor:
        """The tensor of an array. Raises InvalidInput for types that model files do not have."""
        name = _NAMES.get(array.dtype.newbyteorder("<"))
        if name is None:
            raise InvalidInput(f"an array of {array.dtype} has no place in safetensors: convert it to float32 first")
        return cls(name, array.astype(DTYPES[name], copy=False))

    @classmethod
    def of_floats(cls, values: Floats, dtype: str, name: str = "a tensor") -> Tensor:
        """``values`` rounded to ``dtype`` (F32, F16 or BF16). Raises InvalidInput when one is too large for it."""
        if dtype == "F32":
            return cls(dtype, values)
        if dtype == "F16":
            if values.size and np.abs(values).max() >= 65520.0:
                raise InvalidInput(f"{name} has values beyond float16's 65504: write it as F32 or BF16")
            return cls(dtype, values.astype(np.float16))
        if dtype != "BF16":
            raise InvalidInput(f"{name}: weights are F32, F16 or BF16, not {dtype}")
        bits = np.ascontiguousarray(values).view(np.uint32)
        # Add half of the last place that stays, less one where that place is even: ties go to even.
        rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")
        if ((rounded & 0x7F80) == 0x7F80).any():
            raise InvalidInput(f"{name} has values beyond bfloat16's largest, or not finite: write it as F32")
        return cls(dtype, rounded)

    def floats(self, name: str = "a tensor") -> Floats:
        """Its values as float32, exactly: F32 as it is, F16 and BF16 widened.

        Raises:
            InvalidInput: the dtype is another, or a value is not finite.
        """
        if self.dtype == "F32":
            found: Floats = self.values
        elif self.dtype == "F16":
            found = self.values.astype(np.float32)
        elif self.dtype == "BF16":
            found = (self.values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            raise InvalidInput(f"{name}: weights are F32, F16 or BF16, not {self.dtype}")
        # Differences and products of such values would be NaN, and nobody would know where they came from.
        if not np.isfinite(found).all():
            raise InvalidInput(f"{name} has values that are not finite: the file is damaged, or training diverged")
        return found

    def data(self) -> memoryview:
        """Its bytes as a file holds them; a copy only where the array is not contiguous."""
        return self._bytes().data

    def _bytes(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self.values).reshape(-1).view(np.uint8)

    def same(self, other: Tensor) -> bool:
        """Whether dtype, shape and every bit are equal."""
        return self.dtype == other.dtype and self.shape == other.shape and np.array_equal(self._bytes(), other._bytes())

    def digest_line(self, name: str) -> str:
        """Name, dtype, shape and SHA-256 of the bytes: what ``digest`` hashes."""
        shape = ",".join(map(str, self.shape))
        return f"{len(name)}:{name} {self.dtype} [{shape}] {hashlib.sha256(self.data()).hexdigest()}\n"


Source = Mapping[str, Tensor] | Mapping[str, NDArray[Any]]
"""A model: its tensors or arrays by name. A ``safetensors.File`` is one, read tensor by tensor."""


def tensor(model: Source, name: str) -> Tensor:
    """One tensor of a model."""
    found = model[name]
    return found if isinstance(found, Tensor) else Tensor.of(np.asarray(found))


def digest(lines: Iterable[str]) -> str:
    """The digest of a model, ``sha256:…``, from the digest lines of its tensors; their order does not matter."""
    found = hashlib.sha256()
    for line in sorted(lines):
        found.update(line.encode())
    return f"sha256:{found.hexdigest()}"


def digest_of(model: Source) -> str:
    """The digest of a model: of its tensors, so a file that was written again with other metadata has the same one."""
    return digest(tensor(model, name).digest_line(name) for name in model)
