"""A wasmtime engine: what it compiles and loads, and how the guest in it is interrupted."""

from __future__ import annotations

import platform
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import wasmtime

from hanzo_compute.adapters.sandbox import binding
from hanzo_compute.adapters.sandbox.settings import FLAGS, SETTINGS, Profile, cpu_level

_FRAME: Final = re.compile(r"\d+: +0x[0-9a-f]+ - ")
"""A line of a backtrace."""
_COUNT: Final = re.compile(r"^\d+: ")


class InvalidProgram(Exception):
    """The module cannot be compiled or linked; the message says why."""


class Engine:
    """One wasmtime engine, in which one guest runs at a time: an interrupt is meant for that one."""

    def __init__(self, profile: Profile, *, level: str | None = None, pooled: bool = True) -> None:
        self.profile = profile
        self.backend = binding.backend()
        level = cpu_level() if level is None else level
        self.engine = wasmtime.Engine(_config(profile, level, pooled=pooled))

        self._lock = threading.Lock()
        self._runs = False
        self._deadline: float | None = None

    @property
    def metered(self) -> bool:
        """Whether fuel is counted."""
        return self.profile is Profile.METERED

    def compile(self, wasm: bytes, *, component: bool = False) -> bytearray:
        """Compile to an artefact. Raises InvalidProgram."""
        if component and self.metered:
            raise InvalidProgram("it is a component: those run in the profile fast, without a fuel limit")
        try:
            if component:
                from wasmtime import component as components

                return components.Component(self.engine, wasm).serialize()
            return wasmtime.Module(self.engine, wasm).serialize()
        except wasmtime.WasmtimeError as error:
            raise InvalidProgram(f"it does not compile: {said(error)}") from None

    def load(self, path: str) -> wasmtime.Module | None:
        """Map an artefact that somebody has authenticated; None if this engine cannot use it."""
        try:
            return wasmtime.Module.deserialize_file(self.engine, path)
        except wasmtime.WasmtimeError:
            return None

    def load_component(self, path: str) -> Any:
        """Map the artefact of a component; None if this engine cannot use it."""
        from wasmtime import component as components

        try:
            return components.Component.deserialize_file(self.engine, path)
        except wasmtime.WasmtimeError:
            return None

    def begin(self, deadline: float | None, arm: Callable[[], None]) -> None:
        """A guest is about to run, until ``deadline`` at most; ``arm`` makes its store heed the next interrupt."""
        with self._lock:
            self._runs, self._deadline = True, deadline
            arm()

    def end(self) -> None:
        """It has ended."""
        with self._lock:
            self._runs = False

    def check(self) -> None:
        """Interrupt the guest that runs if its time is over: to be called every few milliseconds, by any thread."""
        with self._lock:
            if self._runs and self._deadline is not None and time.monotonic() >= self._deadline:
                self.engine.increment_epoch()

    def stop(self) -> None:
        """Interrupt the guest that runs now, from any thread, unless it waits inside a host call."""
        with self._lock:
            if self._runs:
                self._deadline = 0.0
                self.engine.increment_epoch()


def _config(profile: Profile, level: str, *, pooled: bool) -> wasmtime.Config:
    config = wasmtime.Config()
    for name, value in SETTINGS[profile].items():
        setattr(config, name, value)
    if level:
        # A target that is named takes no more from this machine's processor than the flags that follow.
        config.target = f"{platform.machine()}-unknown-linux-gnu"
        for flag in FLAGS[level]:
            config.cranelift_flag_enable(flag)
    if pooled:
        binding.pool(config, binding.Pool())
    return config


def said(error: BaseException) -> str:
    """The parts of wasmtime's error chain that say something, without its backtrace, in one line."""
    lines = []
    for line in str(error).splitlines():
        text = line.strip()
        if _FRAME.match(text):
            continue
        text = _COUNT.sub("", text)
        if text.startswith(("wasm backtrace", "error while executing", "Stack backtrace")):
            continue
        if text and text != "Caused by:":
            lines.append(text)
    return "; ".join(lines)[:1000]
