"""The WASM runner: WASI preview 1 commands, and Python source, in worker processes that run wasmtime.

runner      the Runner port: attempts, slots, adoption after a restart
program     from a lease to what a worker is asked
supervise   one attempt on one worker, with every limit that ends it
attempt     an attempt's directory               logtail  its output as log entries
outcomes    from how a run ended to the Outcome
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanzo_compute.adapters.runner.wasm.runner import WasmRunner

__all__ = ["WasmRunner"]


def __getattr__(name: str) -> Any:
    # A worker imports this package as well, and must not pay for the supervisor's imports.
    if name == "WasmRunner":
        from hanzo_compute.adapters.runner.wasm.runner import WasmRunner

        return WasmRunner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
