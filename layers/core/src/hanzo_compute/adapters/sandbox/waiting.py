"""A call that waits for a worker, or for its end in one, and what it comes to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from hanzo_compute.adapters.sandbox.call import Report
from hanzo_compute.adapters.sandbox.frames import BadFrame
from hanzo_compute.adapters.sandbox.process import Answered
from hanzo_compute.adapters.sandbox.programs import Program
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.outcome import Category
from hanzo_compute.ports.sandboxes import GuestCall, GuestResult

LOGS_MAX: Final = 64 << 10
"""Bytes that are kept of what one call logs."""


@dataclass(eq=False)
class Waiting:
    """A call and who waits for it."""

    call: GuestCall
    program: Program
    done: asyncio.Future[GuestResult]
    since: float
    """On the loop's clock."""
    logs: bytearray = field(default_factory=bytearray)
    tried: bool = False
    """It was given to a worker that ended before it began."""
    written: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    """Standard output and standard error of a live call."""

    @property
    def live(self) -> bool:
        """Whether its output comes while it runs. What a reactor answers is there at its end."""
        return self.call.heard is not None and self.call.program.entry == "command"

    def output(self, stream: int, data: bytes) -> None:
        """Take what a worker says while it runs: a line that it logged, or (live) output.

        Raises:
            BadFrame: no guest of ours can have written that.
        """
        if stream == 0:
            left = LOGS_MAX - len(self.logs)
            if left > 0:
                self.logs += data[:left].replace(b"\0", b": ", 1)[: left - 1] + b"\n"
            return
        whole = self.written[stream - 1]
        if not self.live or len(whole) + len(data) > self.call.program.output_max:
            raise BadFrame("the worker sent more output than a call has")
        whole += data
        if stream == 1 and self.call.heard is not None:
            self.call.heard(data)

    def answer(self, answered: Answered) -> None:
        """Hand over what a worker says."""
        seconds = answered.wall_us / 1e6
        self.program.pace_s += (min(seconds, 1.0) - self.program.pace_s) / 4
        if answered.report is None:
            self.end(Category.PLATFORM, answered.error or "the worker gave no reason", answered.wall_us)
        else:
            self._settle(self._result(answered.report, answered.wall_us))

    def end(self, category: Category, detail: str, wall_us: int) -> None:
        """End it without a report; what it has written so far is kept."""
        output, errors = bytes(self.written[0]), bytes(self.logs + self.written[1])
        runtime = self.program.runtime
        self._settle(GuestResult(category.value, output, errors, detail=detail, wall_us=wall_us, runtime=runtime))

    def fail(self, error: Exception) -> None:
        """End it with an error, if it has not ended."""
        if not self.done.done():
            self.done.set_exception(error)

    def _settle(self, result: GuestResult) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def _result(self, report: Report, wall_us: int) -> GuestResult:
        command = self.call.program.entry == "command"
        live, said = map(bytes, self.written)
        return GuestResult(
            category=_category(report).value,
            output=(live or report.stdout or report.output) if command else report.output,
            errors=b"".join([self.logs, said, report.stderr, b"" if command else report.stdout]),
            detail=report.detail,
            exit_code=report.exit_code,
            trap=report.trap,
            limits=tuple(report.limits),
            wall_us=wall_us,
            cpu_ms=report.cpu_ms,
            fuel=report.fuel,
            memory_bytes=report.memory_bytes,
            runtime=self.program.runtime,
        )


def stopping() -> Unavailable:
    """What whoever waits gets when the platform ends."""
    return Unavailable("the platform is stopping", hint="repeat the call")


def _category(report: Report) -> Category:
    if report.kind == "oom":
        return Category.OOM
    if report.kind == "invalid":
        return Category.INVALID_PROGRAM
    if report.trap is not None:
        named = {"interrupt": Category.TIMEOUT, "out_of_fuel": Category.FUEL}
        return named.get(report.trap, Category.OOM if report.at_memory_limit else Category.TRAP)
    if report.exit_code:
        return Category.OOM if report.at_memory_limit else Category.EXIT
    return Category.OK
