"""Memory that a worker and its supervisor share, so that what is large need not go through their socket.

It belongs to one of them at a time: a call that nothing else runs beside brings it to the worker, and that call's
result brings it back. The supervisor believes nothing in it. What it takes is copied first, and looked at afterwards;
and the worker cannot make it shorter under the supervisor's hands.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
from collections.abc import Sequence
from typing import Final

from hanzo_compute.adapters.sandbox import frames
from hanzo_compute.adapters.sandbox.frames import BadFrame, Invocation, Result

SIZE: Final = 8 << 20
"""What is larger goes through the socket."""
LEAST: Final = 32 << 10
"""So does what is shorter: it is one piece there."""

_F_ADD_SEALS: Final = 1033
_SEALS: Final = 0x1 | 0x2 | 0x4
"""Linux, fcntl.h: no more seals (SEAL_SEAL), not shorter (SEAL_SHRINK), not longer (SEAL_GROW)."""


class Area:
    """The memory, mapped. Its pages exist once they have been used."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, 0)
        self._size = len(self._memory)

    def put(self, data: bytes) -> bool:
        """Put data into it; False if it is too short for that to pay, or too long, or this is closed."""
        fits = LEAST < len(data) <= self._size and not self._memory.closed
        if fits:
            self._memory[: len(data)] = data
        return fits

    def take(self, size: int) -> bytes:
        """A copy of its begin. Raises BadFrame."""
        if size > self._size:
            raise BadFrame(f"{size} bytes in memory of {self._size}")
        return self._memory[:size]

    def close(self) -> None:
        """Unmap it; repeatable."""
        self._memory.close()


class Lender:
    """The supervisor's side: frames of calls, and what came back."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("hzc-area", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        """For the worker, until :meth:`given`."""
        try:
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]  # this is a file to the kernel
            os.ftruncate(self.fd, SIZE if most == resource.RLIM_INFINITY else min(SIZE, max(most, 1)))
            fcntl.fcntl(self.fd, _F_ADD_SEALS, _SEALS)
            self._area = Area(self.fd)
        except OSError:
            os.close(self.fd)
            raise
        self._out = 0
        """Calls without a result."""
        self._lent = False

    def given(self) -> None:
        """The worker has it."""
        os.close(self.fd)

    def calls(self, batch: Sequence[Invocation]) -> bytes:
        """The frame that sends calls."""
        alone = not self._out and len(batch) == 1
        self._out += len(batch)
        if not alone:
            return frames.calls(batch)
        self._lent = True
        return frames.lent(batch[0], inside=self._area.put(batch[0].data))

    def results(self, kind: int, body: bytes) -> list[Result]:
        """The results in a frame. Raises BadFrame."""
        lent, self._lent = self._lent, False
        if kind == frames.BACK:
            if not lent or not self._out:
                raise BadFrame("a result in memory that was not lent")
            result, size = frames.back(body)
            found = [result._replace(data=self._area.take(size))]
        else:
            found = frames.results(body, self._out)
        self._out -= len(found)
        return found

    def close(self) -> None:
        """Unmap it; repeatable."""
        self._area.close()
