"""The safetensors format: a reader that takes nothing on trust, and a writer that replaces files at once or not at all.

Format (https://github.com/huggingface/safetensors, "Format"): 8 bytes with the header's length (unsigned, little
endian), a JSON object that gives each tensor's dtype, shape and ``data_offsets`` into the rest, then the rest. Tensors
cover the rest without holes or overlaps; ``__metadata__`` maps strings to strings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from hllm.bitdelta.tensors import DTYPES, Tensor
from hllm.errors import InvalidInput

HEADER_MAX: Final = 100_000_000
"""Bytes; the format's own bound."""
RANK_MAX: Final = 64
"""Of numpy's arrays."""
SAID_MAX: Final = 500
METADATA: Final = "__metadata__"


class File(Mapping[str, Tensor]):
    """A safetensors file, open for reading: its tensors by name, each a view of the mapped file, in the file's order.

    Raises:
        InvalidInput: it is no safetensors file, or claims what it does not hold.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        size = self.path.stat().st_size
        with self.path.open("rb") as source:
            length = int.from_bytes(source.read(8), "little")
            if size < 8 or length > size - 8:
                self._refuse(f"its header would have {length} bytes, the file has {size} in all")
            if length > HEADER_MAX:
                self._refuse(f"its header would have {length} bytes, and {HEADER_MAX} is the format's bound")
            header = source.read(length)
        self.size = size
        self.metadata, self._entries = self._parse(header, size - 8 - length)
        self._start = 8 + length
        self._bytes: NDArray[np.uint8] = np.memmap(self.path, np.uint8, "r")
        if self._bytes.size != size:
            self._refuse("it changed while it was opened")

    def __getitem__(self, name: str) -> Tensor:
        dtype, shape, begin, end = self._entries[name]
        data = self._bytes[self._start + begin : self._start + end]
        return Tensor(dtype, np.asarray(data).view(DTYPES[dtype]).reshape(shape))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __enter__(self) -> File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The mapping ends with the last view of it.
        del self._bytes

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidInput(f"{self.path.name} is no safetensors file: {brief(why)}")

    def _parse(
        self, header: bytes, room: int
    ) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], int, int]]]:
        try:
            found = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            self._refuse(f"its header is not JSON: {error}")
        if not isinstance(found, dict) or not header.startswith(b"{"):
            self._refuse("its header is not a JSON object")
        metadata = found.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in metadata.values()):
            self._refuse(f"{METADATA} must map strings to strings")
        entries = {name: self._entry(name, entry) for name, entry in found.items()}
        at = 0
        # Without holes and overlaps, every byte belongs to one tensor: nothing is hidden, nothing is read twice.
        for name, (_, _, begin, end) in sorted(entries.items(), key=lambda each: each[1][2:]):
            if begin != at:
                self._refuse(f"tensor {name!r} begins at {begin}, where {at} is due: tensors overlap or leave a hole")
            at = end
        if at != room:
            self._refuse(f"its tensors cover {at} bytes, and {room} are there")
        return metadata, dict(sorted(entries.items(), key=lambda each: each[1][2:]))

    def _entry(self, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            self._refuse(f"tensor {name!r} must have dtype, shape and data_offsets, and nothing else")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            self._refuse(f"tensor {name!r} has dtype {dtype!r}; known are {', '.join(DTYPES)}")
        if not _are_sizes(shape) or len(shape) > RANK_MAX:
            self._refuse(f"tensor {name!r} has no shape: at most {RANK_MAX} lengths, none below zero")
        if not _are_sizes(offsets) or len(offsets) != 2:
            self._refuse(f"tensor {name!r} must have two offsets, none below zero")
        begin, end = offsets
        item = DTYPES[dtype].itemsize
        if begin > end or prod(shape) * item != end - begin:
            self._refuse(f"tensor {name!r} of {dtype} {shape} needs {prod(shape) * item} bytes, not {begin}…{end}")
        # An empty tensor may name any other lengths; numpy has a bound for them too.
        if prod(length for length in shape if length) * item >= 2**63:
            self._refuse(f"tensor {name!r} has a shape that is too large")
        return dtype, tuple(shape), begin, end


def brief(text: str) -> str:
    """Not more of it than a message should have: names in a file can be of any length."""
    return text if len(text) <= SAID_MAX else f"{text[:SAID_MAX]}…"


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**63 for each in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


class Writer:
    """Writes a file whose tensors are known by dtype and shape, one at a time, so that none but one is in memory.

    As a context: at its end the file replaces ``path`` when every tensor was written; after an error there is nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        # The widest types come first, so that each tensor lies at a multiple of its item's size.
        self.order = sorted(tensors, key=lambda name: (-DTYPES[tensors[name][0]].itemsize, name))
        header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
        at = 0
        for name in self.order:
            if name == METADATA:
                raise InvalidInput(f"no tensor can be called {METADATA}: the format keeps that name for metadata")
            dtype, shape = tensors[name]
            end = at + prod(shape) * DTYPES[dtype].itemsize
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        self._head = text + b" " * (-len(text) % 8)
        if len(self._head) > HEADER_MAX:
            raise InvalidInput(f"the header would have {len(self._head)} bytes, and {HEADER_MAX} is the format's bound")
        self._tensors = tensors
        self._written = 0

    def __enter__(self) -> Writer:
        import tempfile  # here, as only a writer needs it, and it is slow to import

        descriptor, self._temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        self._file = os.fdopen(descriptor, "wb")
        self._file.write(len(self._head).to_bytes(8, "little") + self._head)
        return self

    def add(self, name: str, tensor: Tensor) -> None:
        """Write the next tensor of ``order``."""
        if name != self.order[self._written] or (tensor.dtype, tensor.shape) != self._tensors[name]:
            raise InvalidInput(f"tensor {name!r} is not the one that is due, or is not what was announced")
        self._file.write(tensor.data())
        self._written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        temporary = Path(self._temporary)
        try:
            with self._file:
                if kind is None and self._written != len(self.order):
                    raise InvalidInput(f"{len(self.order) - self._written} tensors were not written")
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                temporary.chmod(0o666 & ~_umask())
                temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def save(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``tensors`` as ``path``, which is replaced when the new file is whole. Raises InvalidInput and OSError."""
    with Writer(path, {name: (each.dtype, each.shape) for name, each in tensors.items()}, metadata) as writer:
        for name in writer.order:
            writer.add(name, tensors[name])


def arrays(file: Mapping[str, Tensor], names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Copies of the tensors as arrays that numpy can calculate with; bfloat16 as float32, which holds it exactly."""
    return {
        name: np.array(file[name].floats(name) if file[name].dtype == "BF16" else file[name].values)
        for name in (file if names is None else names)
    }


def _umask() -> int:
    # It can only be read by setting it.
    found = os.umask(0o077)
    os.umask(found)
    return found
