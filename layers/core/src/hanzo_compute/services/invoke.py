"""A function is called: what is run for whom, at most so many at a time; and what the call came to."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hanzo_compute.errors import FunctionFailed, FunctionTimedOut, NoCapacity, RateLimited, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.function import granted
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.registry import Version
from hanzo_compute.ports.guests import GuestCall, GuestProgram, GuestResult
from hanzo_compute.services import function_logs, functions, submit
from hanzo_compute.services.context import Context

SYNC_S: Final = 25
"""Longest time of a call that somebody waits for: an HTTP API ends an integration at 30 s."""
CUT: Final = "leave it as an output of a job, or answer in parts"
MAIN: Final = {"python": "main.py", "javascript": "main.js"}


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call came to: its response, or the job that it became."""

    id: str
    reference: str
    result: GuestResult
    job: Job | None = None


@dataclass(eq=False)
class Pending:
    """A call that may begin. :meth:`finish` is called with its result, and :meth:`close` whatever happens."""

    id: str
    call: GuestCall
    version: Version
    _ctx: Context
    _release: Callable[[], None]
    _began_ms: int
    _stranger: bool
    _open: bool = field(default=True)

    def finish(self, result: GuestResult) -> Answered:
        """Keep what is to be kept of a call that has ended.

        Raises:
            FunctionFailed, FunctionTimedOut: it did not end well.
            Unavailable: the sandbox failed, not the function.
        """
        ctx, reference = self._ctx, self.version.reference
        function_logs.note(ctx, self.call.tenant, reference, self.id, self._began_ms, result)
        category = Category(result.category)
        cut = category is Category.OK and "stdout" in result.limits
        if category is Category.OK and not cut:
            return Answered(self.id, reference, result)
        if category is Category.PLATFORM:
            raise Unavailable(f"the sandbox failed: {result.detail}", hint="repeat the call", invocation=self.id)
        told: dict[str, Any] = {"invocation": self.id, "function": reference, "category": category.value}
        last = result.errors.decode("utf-8", "replace").strip().splitlines()[-1:]
        hint = f"hzc fn logs {self.version.name}"
        if category is Category.TIMEOUT:
            if self._longer:
                return Answered(self.id, reference, result, self._as_job())
            seconds = f"{self.call.timeout_s:g} s"
            raise FunctionTimedOut(f"{reference} did not answer within {seconds}", hint=hint, **told)
        if self._stranger:
            # What it said of itself is for whom it belongs to.
            raise FunctionFailed(f"{reference} failed", invocation=self.id)
        if cut:
            told["category"] = Category.EXIT.value
            raise FunctionFailed(f"{reference} answered more than {bounds.RESPONSE_MAX} bytes", hint=CUT, **told)
        found = {"exit_code": result.exit_code, "trap": result.trap, "limits": list(result.limits) or None}
        told |= {name: value for name, value in found.items() if value is not None}
        end = result.detail or f"it ended with exit code {result.exit_code}"
        said = f": {last[0][:300]}" if last else ""
        raise FunctionFailed(f"{reference} failed ({category}): {end}{said}", hint=hint, **told)

    def close(self) -> None:
        """The call is over."""
        if self._open:
            self._open = False
            self._release()

    @property
    def _longer(self) -> bool:
        """Whether it may run for longer than anybody waits, and can do so as a job."""
        spec = self.version.spec
        return (
            not self._stranger
            and spec["resources"]["timeout_s"] > SYNC_S
            and spec["abi"] == "command"
            and not granted(spec)
        )

    def _as_job(self) -> Job:
        body = {
            "source": {"function": self.version.reference},
            "input": {"inline_base64": base64.b64encode(self.call.data).decode()},
        }
        if len(self.call.data) > bounds.INLINE_MAX:
            body["input"] = {"blob": self._ctx.blobs.put(self.call.tenant, self.call.data)}
        key = f"invocation/{self.id}"
        return submit.submit(self._ctx, self.call.tenant, parse_spec(body), idempotency_key=key).job


def begin(ctx: Context, tenant: str, name: str, ref: str | None, data: bytes) -> Pending:
    """Let a call begin, if its function may have one more at a time.

    Raises:
        NotFound: no such function, version or alias.
        RateLimited: as many calls of it run as may.
        NoCapacity: no pool here runs functions.
    """
    version = functions.resolve(ctx, tenant, name, ref, functions.pick(ctx))
    return _begin(ctx, tenant, version, data)


def begin_version(ctx: Context, tenant: str, version: Version, data: bytes, *, stranger: bool = False) -> Pending:
    """The same for a version that the caller has resolved. A ``stranger`` hears nothing of why it failed, and gets
    no job."""
    return _begin(ctx, tenant, version, data, stranger=stranger)


def _begin(ctx: Context, tenant: str, version: Version, data: bytes, *, stranger: bool = False) -> Pending:
    if not any("wasm" in pool.runtimes for pool in ctx.policy.pools):
        raise NoCapacity("no pool here runs functions", hint="ask the operator")
    spec = version.spec
    key, most = (tenant, version.name), spec["concurrency"]
    running = ctx.calls.get(key, 0)
    if running >= most:
        raise RateLimited(
            f"{most} calls of {version.name} run, which is the most at a time",
            hint="repeat it later, or deploy it with a larger concurrency",
            retry_after_s=1,
            function=version.name,
        )
    now = ctx.clock.now_ms()
    call_id = ctx.ids.new("i", now)
    timeout_s = min(spec["resources"]["timeout_s"], SYNC_S)
    call = GuestCall(program(ctx, tenant, version), tenant, data, timeout_s)

    def release() -> None:
        left = ctx.calls.get(key, 1) - 1
        if left:
            ctx.calls[key] = left
        else:
            ctx.calls.pop(key, None)

    ctx.calls[key] = running + 1
    return Pending(call_id, call, version, ctx, release, now, stranger)


def program(ctx: Context, tenant: str, version: Version) -> GuestProgram:
    """What a version runs."""
    spec, source = version.spec, version.spec["source"]
    language, blob = source.get("language"), source.get("module")
    files = {MAIN[language]: source["code"].encode()} if language is not None else {}

    def module() -> bytes:
        return ctx.blobs.get(tenant, blob)

    return GuestProgram(
        # A number never names two versions of a tenant's function.
        key=f"{tenant}/{version.reference}",
        entry=spec["abi"],
        profile=spec["profile"],
        module=module,
        digest="" if blob is None else blob.removeprefix("b1-"),
        language=language,
        files=files,
        args=tuple(spec.get("args", ())),
        env=spec.get("env", {}),
        memory_mib=spec["resources"]["memory_mib"],
        fuel=spec["resources"].get("fuel"),
        output_max=bounds.RESPONSE_MAX,
        granted=frozenset(granted(spec)),
    )
