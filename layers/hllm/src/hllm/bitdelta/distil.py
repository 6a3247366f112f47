"""Scales that fit what a layer puts out rather than its weights.

The paper distils its scales end to end, against the logits of the fine-tune, by gradient descent (arXiv 2402.10193,
§3). Here each matrix is fitted alone, on inputs of its layer, where least squares has a closed form: with inputs X the
scales a minimise ‖XΔᵀ - Σ aⱼ·XSⱼᵀ‖², whose normal equations have as many unknowns as there are planes (in each row,
when each row has scales of its own).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hllm.bitdelta.bits import Unpacker, tiles
from hllm.bitdelta.matrix import MatrixDelta
from hllm.bitdelta.tensors import Floats
from hllm.errors import InvalidInput

Doubles = NDArray[np.float64]


def distil_scales(delta: MatrixDelta, base: Floats, tuned: Floats, inputs: Floats) -> MatrixDelta:
    """``delta`` with scales that are best for ``inputs`` (n, columns) of the layer.

    Where the inputs leave a direction open, the scales keep what they were along it. A residual is made afterwards.
    Raises InvalidInput: shapes do not fit, inputs are not finite, or the delta has its residual already.
    """
    if base.shape != delta.shape or tuned.shape != delta.shape:
        raise InvalidInput(
            f"the delta is of a matrix of {delta.shape}; base and tuned have {base.shape}, {tuned.shape}"
        )
    if inputs.ndim != 2 or inputs.shape[1] != base.shape[1] or not len(inputs):
        raise InvalidInput(f"inputs have the shape {inputs.shape}; (n, {base.shape[1]}) goes with this matrix, n > 0")
    if not np.isfinite(inputs).all():
        raise InvalidInput("inputs have values that are not finite")
    if delta.rank:
        raise InvalidInput("the delta has its residual already: distil first")
    gram, target = _equations(delta, base, tuned, inputs.astype(np.float64))
    per_row = delta.scales.ndim == 2
    old = delta.scales.T.astype(np.float64) if per_row else delta.scales[None].astype(np.float64)
    if not per_row:
        gram, target = gram.sum(axis=0, keepdims=True), target.sum(axis=0, keepdims=True)
    missing = target - (gram @ old[:, :, None])[:, :, 0]
    new = old + (np.linalg.pinv(gram, hermitian=True) @ missing[:, :, None])[:, :, 0]
    scales = np.ascontiguousarray(new.T if per_row else new[0], np.float32)
    if not np.isfinite(scales).all():
        raise InvalidInput("inputs are too large: the scales that fit them do not fit float32")
    changed = replace(delta, scales=scales)
    return replace(changed, error2=_error2(changed, base, tuned))


def _equations(delta: MatrixDelta, base: Floats, tuned: Floats, x: Doubles) -> tuple[Doubles, Doubles]:
    """For each row the Gram matrix of its planes' outputs, and their products with the wanted output."""
    planes, (rows, columns) = delta.signs.shape[0], delta.shape
    gram, target = np.empty((rows, planes, planes)), np.empty((rows, planes))
    one = np.ones(1, np.float32)
    unpackers = [Unpacker(delta.signs[plane : plane + 1], one, columns) for plane in range(planes)]
    for part in tiles(rows, columns):
        wanted = x @ (tuned[part].astype(np.float64) - base[part]).T
        outputs = np.stack([x @ unpack(part).T.astype(np.float64) for unpack in unpackers])
        gram[part] = np.einsum("jnr,lnr->rjl", outputs, outputs)
        target[part] = np.einsum("jnr,nr->rj", outputs, wanted)
    return gram, target


def _error2(delta: MatrixDelta, base: Floats, tuned: Floats) -> float:
    unpack = Unpacker(delta.signs, delta.scales, delta.shape[1])
    return sum(float(np.sum((tuned[p].astype(np.float64) - base[p] - unpack(p)) ** 2)) for p in tiles(*delta.shape))
