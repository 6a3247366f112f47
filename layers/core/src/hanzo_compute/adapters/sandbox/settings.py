"""How wasmtime is configured, in two profiles, and what compiled modules depend on.

``fast`` is interrupted by epochs. ``metered`` counts fuel too, and leaves nothing to the machine: NaNs are canonical,
there are no threads and no relaxed SIMD, so that a module computes the same to the bit wherever it runs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.sandbox import guest

SANDBOX_VERSION: Final = "hzc-wasi 1"
"""What our part of WASI is called in outcomes: another version may use other fuel."""
SNAPSHOT_VERSION: Final = 1
"""Of how snapshots of an interpreter are taken."""
WASM_STACK: Final = 512 << 10
"""Stack of the guest, bytes. Over wasmtime's async stack of 2 MiB, making an engine aborts the process."""
MEMORY_RESERVED: Final = 4 << 30
"""Address space of each memory: all that 32 bits reach, so that no access needs a check of its bounds."""


class Profile(StrEnum):
    """What an engine is for."""

    FAST = "fast"
    METERED = "metered"


_COMMON: Final[dict[str, Any]] = {
    "epoch_interruption": True,
    "max_wasm_stack": WASM_STACK,
    "memory_reservation": MEMORY_RESERVED,
    "wasm_multi_memory": True,  # for our own modules: a guest's are counted before it is compiled
    "wasm_memory64": False,
    "wasm_custom_page_sizes": False,
    "wasm_threads": False,
    "shared_memory": False,
    "wasm_gc": False,
    "wasm_function_references": False,
    "wasm_exceptions": False,
    "wasm_stack_switching": False,
    "gc_support": False,
}

SETTINGS: Final[dict[Profile, dict[str, Any]]] = {
    Profile.FAST: {**_COMMON, "wasm_component_model": True, "consume_fuel": False},
    Profile.METERED: {
        **_COMMON,
        "wasm_component_model": False,
        "consume_fuel": True,
        "cranelift_nan_canonicalization": True,
        "wasm_relaxed_simd": False,
    },
}

LEVELS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    # Names: the psABI's levels of x86-64. What a level needs in /proc/cpuinfo, and cranelift's names for it.
    "x86_64": {
        "x86-64-v3": ("avx2", "bmi1", "bmi2", "fma", "abm", "popcnt", "sse4_2"),
        "x86-64-v2": ("sse4_2", "popcnt", "ssse3"),
        "x86-64": (),
    },
    "aarch64": {"armv8.1": ("atomics",), "armv8": ()},
}
FLAGS: Final = {
    "x86-64-v3": (
        *("has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"),
        *("has_avx", "has_avx2", "has_bmi1", "has_bmi2", "has_lzcnt", "has_fma"),
    ),
    "x86-64-v2": ("has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"),
    "x86-64": (),
    "armv8.1": ("has_lse",),
    "armv8": (),
}


def version() -> str:
    """The engine's name and version, for outcomes."""
    return f"wasmtime {importlib.metadata.version('wasmtime')}"


def cpu_level() -> str:
    """The best of the fixed levels that this processor reaches: code is compiled for a level, so that it travels."""
    found = LEVELS.get(platform.machine(), {"": ()})
    features = _cpu_features()
    return next(level for level, needs in found.items() if features.issuperset(needs))


def tag(profile: Profile, level: str | None = None, *, snapshot: bool = False) -> str:
    """All that a compiled module depends on besides its source; ``snapshot``: that is an interpreter's."""
    settings = repr(sorted(SETTINGS[profile].items()))
    parts = [version(), settings, platform.machine(), cpu_level() if level is None else level]
    if snapshot:
        parts.append(f"snapshot {SNAPSHOT_VERSION} {hashlib.sha256(guest.resume()).hexdigest()}")
    return "\n".join(parts)


def _cpu_features() -> frozenset[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()
