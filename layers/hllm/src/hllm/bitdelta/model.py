"""BitDelta of whole models: a base and its fine-tune, tensor by tensor.

Models are mappings of names to arrays or ``Tensor``s; a ``safetensors.File`` reads each tensor when it is asked for, so
neither model has to fit in memory, and the delta alone, a sixteenth or less of 16-bit weights, does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hllm.bitdelta import safetensors
from hllm.bitdelta.delta import Delta, Entry, as_matrix
from hllm.bitdelta.distil import distil_scales
from hllm.bitdelta.matrix import compress_matrix, merge_matrix, with_residual
from hllm.bitdelta.tensors import WEIGHTS, Floats, Source, Tensor, digest, digest_of, tensor
from hllm.errors import InvalidInput

EXCLUDED: Final = ("*embed*", "*lm_head*")
"""As in the paper, which keeps embeddings and the head whole: of an embedding few rows change, and signs change all."""


@dataclass(frozen=True, slots=True)
class Options:
    """How matrices are compressed.

    planes: bits per value. per_row: a scale for each row. rank: of the residual that is kept beside the signs (less
    where a matrix has less). exclude: patterns (fnmatch) of names that are kept as they are in the fine-tune.
    """

    planes: int = 1
    per_row: bool = False
    rank: int = 0
    exclude: Sequence[str] = EXCLUDED


def compress(
    base: Source, tuned: Source, options: Options | None = None, inputs: Mapping[str, Floats] | None = None
) -> Delta:
    """What ``tuned`` changed of ``base``: changed matrices as BitDeltas, the rest of the changes as it is.

    ``inputs`` has inputs (n, columns) of layers by the name of their matrix; scales are distilled on them. A tensor
    that the base does not have, such as a new head, is kept whole.

    Raises:
        InvalidInput: a tensor of the base is missing or has another shape, a value is not finite, or a calibration
            input names no matrix that changed.
    """
    options = options or Options()
    if missing := set(base) - set(tuned):
        raise InvalidInput(f"the fine-tune has no {min(missing)!r} ({len(missing)} missing): it is of another model")
    matrices: dict[str, Entry] = {}
    values: dict[str, Tensor] = {}
    lines: list[str] = []
    for name in sorted(tuned):
        after = tensor(tuned, name)
        before = tensor(base, name) if name in base else None
        if before is not None:
            lines.append(before.digest_line(name))
        if before is None:
            values[name] = _whole(name, after)
        elif before.shape != after.shape:
            raise InvalidInput(f"{name!r} is {before.shape} in the base and {after.shape} in the fine-tune")
        elif not before.same(after):
            if _is_packed(name, before, after, options):
                matrices[name] = _entry(name, before, after, options, None if inputs is None else inputs.get(name))
            else:
                values[name] = _whole(name, after)
    if unused := (inputs or {}).keys() - matrices.keys():
        raise InvalidInput(f"there are calibration inputs for {min(unused)!r}, which is no matrix that changed")
    return Delta(digest(lines), matrices, values)


def _whole(name: str, found: Tensor) -> Tensor:
    if found.dtype in WEIGHTS:
        found.floats(repr(name))  # which looks for values that are not finite
    return found


def _is_packed(name: str, before: Tensor, after: Tensor, options: Options) -> bool:
    return (
        before.dtype in WEIGHTS
        and after.dtype in WEIGHTS
        and len(after.shape) >= 2
        and after.values.size > 0
        and not any(fnmatchcase(name, pattern) for pattern in options.exclude)
    )


def _entry(name: str, before: Tensor, after: Tensor, options: Options, inputs: Floats | None) -> Entry:
    shape = as_matrix(after.shape)
    old, new = (each.floats(repr(name)).reshape(shape) for each in (before, after))
    try:
        delta = compress_matrix(old, new, planes=options.planes, per_row=options.per_row)
        if inputs is not None:
            delta = distil_scales(delta, old, new, inputs)
        delta = with_residual(delta, old, new, min(options.rank, *shape))
    except InvalidInput as error:
        raise InvalidInput(f"{name!r}: {error}") from None
    return Entry(delta, after.dtype, after.shape)


def merge(base: Source, delta: Delta) -> dict[str, NDArray[Any]]:
    """The fine-tune again, nearly, as arrays; bfloat16 as float32. Tensors that did not change are those of the base.

    Raises:
        InvalidInput: the delta was made of another base.
    """
    check_base(base, delta)
    return merge_unchecked(base, delta)


def merge_unchecked(base: Source, delta: Delta) -> dict[str, NDArray[Any]]:
    """``merge`` onto a base that ``check_base`` has let pass before: hashing it takes longer than merging."""
    return {name: _array(_merged(base, delta, name)) for name in _names(base, delta)}


def merge_file(base: Source, delta: Delta, path: str | os.PathLike[str]) -> None:
    """Merge into the safetensors file ``path``, tensor by tensor, with the fine-tune's dtypes.

    The file appears when it is whole and the base has proven to be the delta's; otherwise nothing changes.

    Raises:
        InvalidInput: the delta was made of another base, or a value does not fit the fine-tune's dtype.
    """
    announced = {name: _kind(base, delta, name) for name in _names(base, delta)}
    lines: list[str] = []
    with safetensors.Writer(path, announced, {"format": "pt"}) as writer:
        for name in writer.order:
            if name in base:
                lines.append(tensor(base, name).digest_line(name))
            writer.add(name, _merged(base, delta, name))
        _same_base(digest(lines), delta)


def check_base(base: Source, delta: Delta) -> None:
    """Raise InvalidInput unless the delta was made of this base."""
    _same_base(digest_of(base), delta)


def _same_base(found: str, delta: Delta) -> None:
    if found != delta.base:
        raise InvalidInput(
            f"the delta was made of the base {delta.base}, and this one is {found}: "
            "merge it onto the model that the fine-tune started from"
        )


def _names(base: Source, delta: Delta) -> Iterator[str]:
    for name, entry in delta.matrices.items():
        if name not in base or tensor(base, name).shape != entry.shape or tensor(base, name).dtype not in WEIGHTS:
            raise InvalidInput(f"the delta changes {name!r} of {entry.shape}, which this base does not have")
    yield from base
    yield from (name for name in delta.values if name not in base)


def _kind(base: Source, delta: Delta, name: str) -> tuple[str, tuple[int, ...]]:
    if name in delta.matrices:
        return delta.matrices[name].dtype, delta.matrices[name].shape
    found = delta.values[name] if name in delta.values else tensor(base, name)
    return found.dtype, found.shape


def _merged(base: Source, delta: Delta, name: str) -> Tensor:
    entry = delta.matrices.get(name)
    if entry is None:
        return delta.values[name] if name in delta.values else tensor(base, name)
    old = tensor(base, name).floats(repr(name)).reshape(as_matrix(entry.shape))
    try:
        with np.errstate(over="raise"):
            new = merge_matrix(old, entry.delta).reshape(entry.shape)
    except FloatingPointError:
        raise InvalidInput(f"{name!r}: base and delta together are beyond float32's largest value") from None
    return Tensor.of_floats(new, entry.dtype, repr(name))


def _array(found: Tensor) -> NDArray[Any]:
    return found.floats() if found.dtype == "BF16" else found.values
