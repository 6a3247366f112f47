"""The optional C form of the recursions: ``python -m hllm.hmm.build`` builds it, where there is a compiler.

numpy is the default and needs nothing. The library lies beside this module, named by what it was built from; without
it, or with ``HLLM_ACCELERATOR=0`` in the environment, numpy runs. Results are the same to rounding, paths identical.
The Lambda layer has none: it is made without compiling.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sysconfig
from pathlib import Path

import numpy as np

from hllm.hmm.layout import Layout
from hllm.hmm.validation import Floats, Ints

SOURCE = Path(__file__).with_name("recursions.c")
# No -ffast-math: it would change what NaN and infinities do, and so the answers.
FLAGS = ("-O3", "-shared", "-fPIC", "-std=c99")
LEAST = 1e-200

_P, _I = ctypes.c_void_p, ctypes.c_int64
_loaded: ctypes.CDLL | None = None
_looked = False


def library() -> Path:
    """Where the library of this source, for this machine, is or would be."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    return SOURCE.with_name(f"_recursions-{digest}-{sysconfig.get_platform()}.so")


def build() -> Path:
    """Compiles the library with ``$CC``, cc, gcc or clang. Raises RuntimeError if there is none, or if it fails."""
    import shutil  # here, as only a build needs them, and they are slow to import
    import subprocess

    compilers = [os.environ.get("CC"), "cc", "gcc", "clang"]
    compiler = next((found for name in compilers if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise RuntimeError("there is no C compiler (CC, cc, gcc, clang): numpy runs without it")
    target = library()
    partial = target.with_suffix(f".{os.getpid()}.part")
    done = subprocess.run([compiler, *FLAGS, "-o", partial, SOURCE, "-lm"], capture_output=True, text=True, check=False)
    if done.returncode:
        partial.unlink(missing_ok=True)
        raise RuntimeError(f"{compiler} failed: {done.stderr.strip()[:500]}")
    partial.replace(target)
    forget()
    return target


def forget() -> None:
    """Looks for the library anew at the next use."""
    global _loaded, _looked
    _loaded, _looked = None, False


def active() -> ctypes.CDLL | None:
    """The library, if it is built and not turned off."""
    global _loaded, _looked  # noqa: PLW0603
    if not _looked:
        _looked = True
        if os.environ.get("HLLM_ACCELERATOR") != "0" and SOURCE.exists() and library().exists():
            try:
                found = ctypes.CDLL(str(library()))
            except OSError:
                return None  # built for another machine: numpy runs
            found.hllm_smooth.argtypes = [_I, _I, _I, _P, _P, _P, _P, _P, ctypes.c_double, ctypes.c_int, _P, _P, _P, _P]
            found.hllm_viterbi.argtypes = [_I, _I, _I, _P, _P, _P, _P, _P, _P, _P, _P]
            found.hllm_viterbi.restype = None
            _loaded = found
    return _loaded


def _chain(layout: Layout, startprob: Floats, transmat: Floats) -> tuple[np.ndarray, ...]:
    return (
        np.ascontiguousarray(startprob),
        np.ascontiguousarray(transmat),
        layout.first.astype(np.uint8),
        layout.filled.astype(np.int64),
    )


def smooth(
    found: ctypes.CDLL, emission: Floats, layout: Layout, startprob: Floats, transmat: Floats, *, both: bool
) -> tuple[float, Floats, Floats] | None:
    """What ``blocks.smooth`` returns; without ``both`` the likelihood alone is meant."""
    steps, states, blocks = emission.shape
    emission = np.ascontiguousarray(emission)
    chain = _chain(layout, startprob, transmat)
    posteriors = np.zeros(emission.shape if both else (0,))
    pairs, logarithm = np.zeros((states, states)), np.zeros(1)
    work = np.empty(blocks * steps + 4 * states)
    short = found.hllm_smooth(
        steps, states, blocks, emission.ctypes.data, *(each.ctypes.data for each in chain), LEAST, int(both),
        posteriors.ctypes.data, pairs.ctypes.data, work.ctypes.data, logarithm.ctypes.data,
    )  # fmt: skip
    return None if short else (float(logarithm[0]), posteriors, pairs)


def viterbi(found: ctypes.CDLL, emission: Floats, layout: Layout, start: Floats, transitions: Floats) -> Ints:
    """The best paths, (steps, blocks), from logarithms that are finite."""
    steps, states, blocks = emission.shape
    emission = np.ascontiguousarray(emission)
    chain = _chain(layout, start, transitions)
    path = np.zeros((steps, blocks), dtype=np.int64)
    back, work = np.empty(steps * blocks * states, dtype=np.int32), np.empty(2 * states)
    found.hllm_viterbi(
        steps, states, blocks, emission.ctypes.data, *(each.ctypes.data for each in chain),
        path.ctypes.data, back.ctypes.data, work.ctypes.data,
    )  # fmt: skip
    return path
