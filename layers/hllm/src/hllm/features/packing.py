"""Float arrays in JSON: little-endian, compressed, in base 64; the same bits come back."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hllm._check import Array
from hllm.errors import InvalidInput


def pack(values: Array) -> dict[str, Any]:
    """JSON of an array."""
    data = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return {"shape": list(values.shape), "zlib": base64.b64encode(zlib.compress(data, 6)).decode("ascii")}


def unpack(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """The array of ``pack``. Raises InvalidInput for anything but finite numbers of that shape."""
    if not isinstance(value, Mapping) or set(value) != {"shape", "zlib"} or value["shape"] != list(shape):
        raise InvalidInput(f"{name} is no packed array of shape {shape}")
    size = 8 * math.prod(shape)
    try:
        # Not more than is wanted, whatever was packed.
        data = zlib.decompressobj().decompress(base64.b64decode(value["zlib"], validate=True), size + 1)
    except (binascii.Error, zlib.error, TypeError, ValueError) as error:
        raise InvalidInput(f"{name} does not unpack ({error}); write it with to_dict") from None
    if len(data) != size:
        raise InvalidInput(f"{name} has {len(data)} bytes; {size} are expected for shape {shape}")
    result = np.frombuffer(data, dtype="<f8").astype(np.float64).reshape(shape)
    if not np.isfinite(result).all():
        raise InvalidInput(f"{name} has values that are NaN or infinite")
    return result
