"""A compiler's process for many cases: what the product does for one module, with its limits, again and again.

``python -m tests.security.fuzz.compiler PARENT``: a case on stdin is its profile (a byte), its length (four bytes) and
the module; the answer on stdout is a status (a byte), a length, and the artefact or the reason.
"""

from __future__ import annotations

import os
import resource
import select
import struct
import subprocess
import sys
import time
import traceback
from typing import BinaryIO

from hanzo_compute.adapters.sandbox import compile as compiling
from hanzo_compute.adapters.sandbox import harden
from hanzo_compute.adapters.sandbox.process import environment
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.model import wasm

HEAD = struct.Struct("<BI")
DONE, REFUSED, BROKEN = 0, 1, 2
PROFILES = (Profile.FAST, Profile.METERED)
CASES_EACH = 2000
"""Cases of one process, so that what one leaves behind stays small."""
CASE_S = 30.0


def serve() -> None:
    """Compile what comes."""
    from hanzo_compute.adapters.sandbox.engine import Engine, InvalidProgram

    engines = {each: Engine(each, pooled=False) for each in PROFILES}
    resource.setrlimit(resource.RLIMIT_DATA, (compiling.COMPILE_MEMORY, compiling.COMPILE_MEMORY))
    harden.refuse_system_calls()
    while head := sys.stdin.buffer.read(HEAD.size):
        profile, length = HEAD.unpack(head)
        data = sys.stdin.buffer.read(length)
        try:
            facts = wasm.inspect(data)
            compiling.check(facts)
            status, said = DONE, bytes(compiling.compile_with(engines[PROFILES[profile]], facts, data))
        except (wasm.InvalidModule, InvalidProgram) as error:
            status, said = REFUSED, str(error).encode("utf-8", "backslashreplace")[: compiling.REASON_MAX]
        except Exception:
            status, said = BROKEN, traceback.format_exc().encode("utf-8", "backslashreplace")
        sys.stdout.buffer.write(HEAD.pack(status, len(said)) + said)
        sys.stdout.buffer.flush()


class Died(Exception):
    """The compiler's process ended by itself."""


class Compiler:
    """That process as its user sees it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._cases = 0

    def compile(self, profile: int, data: bytes) -> tuple[int, bytes]:
        """The status, and the artefact or the reason. Raises Died."""
        if self._cases >= CASES_EACH:
            self.close()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.security.fuzz.compiler", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
            )
            self._cases = 0
        self._cases += 1
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(HEAD.pack(profile, len(data)) + data)
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        until = time.monotonic() + CASE_S
        if not select.select([process.stdout], [], [], until - time.monotonic())[0]:
            self.close()
            return REFUSED, f"compiling it took longer than {CASE_S:g} s".encode()
        head = _exactly(process.stdout, HEAD.size)
        if len(head) < HEAD.size:
            raise self._died()
        status, length = HEAD.unpack(head)
        return status, _exactly(process.stdout, length)

    def _died(self) -> Died:
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        return Died(f"the compiler ended with {code}")

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _exactly(stream: BinaryIO | object, count: int) -> bytes:
    found: bytes = stream.read(count)  # type: ignore[union-attr]
    return found


if __name__ == "__main__":
    harden.harden(int(sys.argv[1]))
    serve()
    harden.leave(0)
