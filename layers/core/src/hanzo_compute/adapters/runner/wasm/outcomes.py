"""From the end of a supervised run to the outcome that the tenant sees."""

from __future__ import annotations

from typing import Any, Final

from hanzo_compute.adapters.runner.wasm.attempt import AttemptDir, printable
from hanzo_compute.adapters.runner.wasm.logtail import LogTail
from hanzo_compute.adapters.runner.wasm.supervise import Ending
from hanzo_compute.adapters.sandbox.call import Report
from hanzo_compute.errors import ComputeError
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category, Outcome, Usage
from hanzo_compute.ports import Lease

DETAIL_MAX: Final = 1000
LIMITS: Final = {
    "stderr": "what it wrote to stderr was cut at its bound",
    "scratch": "it may write no more to files (scratch)",
    "scratch_files": "it may make no more files (scratch_files)",
    "open_files": "it may open no more files at a time (open_files)",
    "host_calls": "it may make no more host calls (host_calls)",
    "host_bytes": "its host calls may move no more bytes (host_bytes)",
}
"""Budgets of a call that were reached, in words."""
STOPPED: Final = "the agent stopped while it ran"


def platform_failure(detail: str, signal: int | None = None) -> Outcome:
    """The outcome of an attempt that we could not run."""
    return Outcome(category=Category.PLATFORM, detail=printable(detail)[:DETAIL_MAX], signal=signal)


def of_error(error: Exception) -> Outcome:
    """The outcome of an attempt that could not even start."""
    if isinstance(error, ComputeError):
        return platform_failure(f"{error.message}; {error.hint}" if error.hint else error.message)
    return platform_failure(f"the agent could not run the attempt: {type(error).__name__}: {error}")


def of_ending(
    ending: Ending, lease: Lease, stop_reason: str | None, files: AttemptDir, runtime_version: str
) -> Outcome:
    """The outcome of a run, from how it ended and what it left."""
    if ending.report is not None:
        verdict = _of_report(ending.report, lease, stop_reason, files)
    else:
        verdict = _without_report(ending, lease, stop_reason)
    cut = files.stdout_cut() if ending.report is None else "stdout" in ending.report.limits
    truncated = ["stdout"] if cut else []
    if log_of(files, lease).truncated():
        truncated.append("log")
    report = ending.report
    usage = Usage(
        wall_ms=ending.wall_ms,
        cpu_ms=ending.cpu_ms,
        memory_peak_bytes=report.memory_bytes if report else 0,
        memory_mib_ms=memory_mib(lease) * ending.wall_ms,
        fuel=report.fuel if report else None,
    )
    reached = [] if report is None else [LIMITS[name] for name in report.limits if name in LIMITS]
    if reached:
        verdict["detail"] = "; ".join([*filter(None, [verdict.get("detail", "")]), *reached])
    verdict["detail"] = printable(verdict.get("detail", ""))[:DETAIL_MAX]
    return Outcome(**verdict, truncated=truncated, usage=usage, runtime_version=runtime_version)


def log_of(files: AttemptDir, lease: Lease) -> LogTail:
    """The attempt's log within its limit."""
    return LogTail(files.stdout, files.stderr, lease.spec.get("log_limit", bounds.LOG_LIMIT_DEFAULT))


def memory_mib(lease: Lease) -> int:
    """The memory limit of an attempt, MiB."""
    limit: int = lease.spec.get("resources", {}).get("memory_mib", bounds.MEMORY_MIB_DEFAULT)
    return limit


def _of_report(report: Report, lease: Lease, stop_reason: str | None, files: AttemptDir) -> dict[str, Any]:
    if report.kind == "oom":
        return _oom(f"it cannot start in {memory_mib(lease)} MiB: {report.detail}")
    if report.kind == "invalid":
        return {"category": Category.INVALID_PROGRAM, "detail": report.detail}
    if report.trap == "interrupt":
        return _stopped(lease, stop_reason)
    if report.trap == "out_of_fuel":
        return {
            "category": Category.FUEL,
            "trap": report.trap,
            "detail": f"it used up its fuel; {report.detail}",
        }
    if report.exit_code == 0:
        return {"category": Category.OK, "exit_code": 0}
    verdict: dict[str, Any]
    if report.trap is not None:
        verdict = {"category": Category.TRAP, "trap": report.trap, "detail": report.detail}
        end = f"the trap {report.trap}"
    else:
        last = files.last_line()
        end = f"exit code {report.exit_code}"
        verdict = {
            "category": Category.EXIT,
            "exit_code": report.exit_code,
            "detail": f"{end}: {last}".strip(": "),
        }
    # A refused growth cannot be seen from here, only what a program comes to that got no memory.
    python_says_so = lease.spec["source"].get("language") == "python" and files.last_line() == "MemoryError"
    if report.at_memory_limit or python_says_so:
        return {
            **verdict,
            **_oom(f"out of memory: {memory_mib(lease)} MiB did not suffice; it ended with {end}"),
        }
    return verdict


def _oom(detail: str) -> dict[str, Any]:
    return {"category": Category.OOM, "oom": True, "detail": detail}


def _stopped(lease: Lease, stop_reason: str | None) -> dict[str, Any]:
    if stop_reason == Category.PLATFORM:
        return {"category": Category.PLATFORM, "detail": STOPPED}
    if stop_reason is not None:
        return {"category": Category(stop_reason), "detail": f"stopped: {stop_reason}"}
    seconds = f"{lease.timeout_ms / 1000:g} s"
    if lease.timeout_is_deadline:
        detail = f"the job's deadline came after {seconds}"
        return {"category": Category.DEADLINE, "timed_out": True, "detail": detail}
    return {
        "category": Category.TIMEOUT,
        "timed_out": True,
        "detail": f"it ran longer than its limit of {seconds}",
    }


def _without_report(ending: Ending, lease: Lease, stop_reason: str | None) -> dict[str, Any]:
    if ending.invalid is not None:
        detail = ending.invalid
        # The interpreter is ours: what keeps it from compiling is no fault of the program.
        ours = lease.spec["source"].get("language") is not None
        return {"category": Category.PLATFORM if ours else Category.INVALID_PROGRAM, "detail": detail}
    if ending.killed is not None:
        verdict = _stopped(lease, stop_reason if ending.killed == "stop" else None)
        return {**verdict, "signal": 9} if ending.wall_ms else verdict
    detail = ending.error or "the worker gave no reason"
    return {"category": Category.PLATFORM, "detail": detail, "signal": ending.signal}
