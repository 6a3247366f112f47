"""A function is called: what is run for whom, at most so many at a time; and what the call came to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hanzo_compute.errors import Conflict, FunctionFailed, FunctionTimedOut, NoCapacity, RateLimited, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.capabilities import Capabilities
from hanzo_compute.model.function import granted
from hanzo_compute.model.invocation import Invocation
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category, Outcome, Output, Usage
from hanzo_compute.model.package import MAIN, environment, unpack
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.registry import Version
from hanzo_compute.model.spec import Resources, code_digest
from hanzo_compute.model.statement import Terms
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram, GuestResult
from hanzo_compute.services import function_logs, functions, pricing, submit
from hanzo_compute.services.context import Context
from hanzo_compute.services.host import CallOf, FunctionHost

SYNC_S: Final = 25
"""Longest time of a call that somebody waits for: an HTTP API ends an integration at 30 s."""
RUNS_MAX: Final = 5
"""A call whose entries were changed meanwhile is run so often at most."""
TERMS_KEPT: Final = 1024
CUT: Final = "leave it as an output of a job, or answer in parts"


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call came to: its response, or the job that it became."""

    id: str
    reference: str
    result: GuestResult
    job: Job | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    """Blob ids of its outputs by name."""


@dataclass(eq=False)
class Pending:
    """A call that may begin. :meth:`finish` is called with its result, and :meth:`close` whatever happens."""

    id: str
    call: GuestCall
    version: Version
    _ctx: Context
    _release: Callable[[], None]
    _began_ms: int
    _terms: Terms
    _stranger: bool
    _host: FunctionHost | None = None
    streamed: bool = False
    """Its caller wants its output as it is written."""
    _open: bool = field(default=True)
    _conflicts: int = field(default=0)
    """Runs that had no effect, as entries that they had used were changed meanwhile."""
    _spent: GuestResult | None = field(default=None)
    """What these used together, until it is billed."""
    _egress: int = field(default=0)
    """Bytes to and from other hosts of runs before this one."""

    @property
    def live(self) -> bool:
        """Whether its output may go out while it runs. Not with entries: such a call may have to be run again."""
        return self.streamed and "kv" not in granted(self.version.spec)

    def whole(self, result: GuestResult) -> GuestResult:
        """The result of a run, with what all runs so far have used: those before it had no effect, and are paid for."""
        spent = self._spent
        if spent is None:
            return result
        return replace(
            result,
            wall_us=spent.wall_us + result.wall_us,
            cpu_ms=spent.cpu_ms + result.cpu_ms,
            fuel=None if spent.fuel is None or result.fuel is None else spent.fuel + result.fuel,
            memory_bytes=max(spent.memory_bytes, result.memory_bytes),
        )

    def finish(self, result: GuestResult) -> Answered | None:
        """Keep what is to be kept of a call that has ended; None: it has to be run again.

        That is so if entries that it has used were changed meanwhile: nothing of the first run is kept but its cost.

        Raises:
            FunctionFailed, FunctionTimedOut: it did not end well.
            Conflict: its entries keep changing.
            Unavailable: the sandbox failed, not the function.
        """
        ctx, reference, host = self._ctx, self.version.reference, self._host
        result, category = self.whole(result), Category(result.category)
        cut = category is Category.OK and "stdout" in result.limits
        if host is not None and category is Category.OK and not cut:
            try:
                host.entries.commit()
            except Conflict:
                self._conflicts, self._spent = self._conflicts + 1, replace(result, output=b"", errors=b"")
                if self._conflicts >= RUNS_MAX:
                    raise
                self._again()
                return None
        last = result.errors.decode("utf-8", "replace").strip().splitlines()[-1:]
        if host is not None and host.lines:
            lines = "".join(f"{level}: {text}\n" for level, text in host.lines)
            result = replace(result, errors=result.errors + lines.encode("utf-8", "backslashreplace"))
        function_logs.note(ctx, self.call.tenant, reference, self.id, self._began_ms, result)
        if category is not Category.PLATFORM and not (category is Category.TIMEOUT and self._longer):
            self._receipt(result, self._conflicts + 1)
        if category is Category.OK and not cut:
            outputs = {} if host is None else host.outputs
            stored = {name: ctx.blobs.put(self.call.tenant, data) for name, data in outputs.items()}
            return Answered(self.id, reference, result, outputs=stored)
        if category is Category.PLATFORM:
            raise Unavailable(f"the sandbox failed: {result.detail}", hint="repeat the call", invocation=self.id)
        told: dict[str, Any] = {"invocation": self.id, "function": reference, "category": category.value}
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
        """The call is over. Runs that had no effect are billed here if none that had followed: nothing came of them."""
        if self._open:
            self._open = False
            self._release()
        if self._spent is not None:
            self._receipt(self._spent, self._conflicts)

    def _receipt(self, result: GuestResult, runs: int) -> None:
        """Let the call have its receipt and its bill, soon: for what ``runs`` of it used together."""
        self._spent = None
        if self._ctx.invocations is None:
            return
        wall_ms = round(result.wall_us / 1000)
        spec, output = self.version.spec, result.output
        outputs = [] if not output else [Output(name="response", size=len(output), blob=f"b1-{_sha256(output)}")]
        outcome = Outcome(
            category=Category(result.category),
            detail="",
            exit_code=result.exit_code,
            trap=result.trap,
            oom=result.category == Category.OOM,
            timed_out=result.category == Category.TIMEOUT,
            outputs=outputs,
            usage=Usage(
                wall_ms=wall_ms,
                cpu_ms=result.cpu_ms,
                memory_peak_bytes=result.memory_bytes,
                memory_mib_ms=spec["resources"]["memory_mib"] * wall_ms,
                fuel=result.fuel,
                egress_bytes=self._egress + (0 if self._host is None else self._host.egress_bytes),
            ),
            runtime_version=result.runtime,
        )
        self._ctx.invocations.add(
            Invocation(
                id=self.id,
                tenant=self.call.tenant,
                function=self.version.reference,
                spec=self.version.digest,
                code=code_digest(spec),
                input=_sha256(self.call.data),
                # One object for all calls of a version, mostly.
                terms=self._terms if runs == 1 else replace(self._terms, most=runs * self._terms.most),
                outcome=outcome,
                started_ms=self._began_ms,
            )
        )

    def _again(self) -> None:
        before, self._host = (
            self._host,
            _host(self._ctx, self.call.tenant, self.version, self.id, self.call, fresh=True),
        )
        self._egress += 0 if before is None else before.egress_bytes
        self.call = replace(self.call, service=self._host)

    @property
    def _longer(self) -> bool:
        """Whether it may run for longer than anybody waits, and can do so as a job: nobody has seen its output."""
        spec = self.version.spec
        return (
            not self._stranger
            and not self.streamed
            and spec["resources"]["timeout_s"] > SYNC_S
            and spec["abi"] == "command"
        )

    def _as_job(self) -> Job:
        body = {
            "source": {"function": self.version.reference},
            "input": {"inline_base64": base64.b64encode(self.call.data).decode()},
        }
        if len(self.call.data) > bounds.INLINE_MAX:
            body["input"] = {"blob": self._ctx.blobs.put(self.call.tenant, self.call.data)}
        key = f"invocation/{self.id}"
        # Requests that the call has sent are recognised by whom it sent them to: the job's are known by the same id.
        origin = {"kind": "invocation", "invocation": self.id}
        spec = parse_spec(body)
        return submit.submit(self._ctx, self.call.tenant, spec, idempotency_key=key, origin=origin).job


def begin(ctx: Context, tenant: str, name: str, ref: str | None, data: bytes, *, streamed: bool = False) -> Pending:
    """Let a call begin, if its function may have one more at a time. A ``streamed`` one becomes no job.

    Raises:
        NotFound: no such function, version or alias.
        RateLimited: as many calls of it run as may.
        NoCapacity: no pool here runs functions.
    """
    version = functions.resolve(ctx, tenant, name, ref, functions.pick(ctx))
    return _begin(ctx, tenant, version, data, streamed=streamed)


def begin_version(ctx: Context, tenant: str, version: Version, data: bytes, *, stranger: bool = False) -> Pending:
    """The same for a version that the caller has resolved. A ``stranger`` hears nothing of why it failed, and gets
    no job."""
    return _begin(ctx, tenant, version, data, stranger=stranger)


def _begin(
    ctx: Context, tenant: str, version: Version, data: bytes, *, stranger: bool = False, streamed: bool = False
) -> Pending:
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
    if ctx.invocations is not None and ctx.invocations.full:
        raise NoCapacity("too many calls wait for their receipts", hint="repeat it later", retry_after_s=2)
    terms = _terms(ctx, version)
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
    host = _host(ctx, tenant, version, call_id, call)
    call = replace(call, service=host)
    return Pending(call_id, call, version, ctx, release, now, terms, stranger, host, streamed)


def _host(
    ctx: Context, tenant: str, version: Version, call_id: str, call: GuestCall, *, fresh: bool = False
) -> FunctionHost | None:
    """What answers a call's host functions, if any is granted."""
    if not granted(version.spec):
        return None
    of = CallOf(tenant, version.name, version.number, call_id, ctx.clock.monotonic() + call.timeout_s)
    capabilities = Capabilities.model_validate(version.spec["capabilities"])
    return FunctionHost(ctx, of, capabilities, ctx.egress, input_data=call.data, fresh=fresh)


def _terms(ctx: Context, version: Version) -> Terms:
    """How calls of a version are billed: the same object for all of them, which makes their receipts cheap."""
    spec, known = version.spec, ctx.terms
    found = known.get(version.digest)
    if found is None:
        if len(known) >= TERMS_KEPT:
            known.clear()
        resources = Resources.model_validate(spec["resources"])
        found = known[version.digest] = pricing.terms_of_call(ctx, "wasm", spec["profile"], resources)
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def program(ctx: Context, tenant: str, version: Version) -> GuestProgram:
    """What a version runs."""
    spec, source = version.spec, version.spec["source"]
    language, blob, packed = source.get("language"), source.get("module"), source.get("package")
    script, env = "" if language is None else source.get("entry") or MAIN[language], spec.get("env", {})
    if packed is not None:
        env = environment(language, env)

    def module() -> bytes:
        return ctx.blobs.get(tenant, blob)

    def files() -> dict[str, bytes]:
        if language is None:
            return {}
        if packed is None:
            return {script: source["code"].encode()}
        return dict(unpack(ctx.blobs.get(tenant, packed), language, script))

    return GuestProgram(
        # A number never names two versions of a tenant's function.
        key=f"{tenant}/{version.reference}",
        entry=spec["abi"],
        profile=spec["profile"],
        module=module,
        digest="" if blob is None else blob.removeprefix("b1-"),
        language=language,
        files=files,
        script=script,
        args=tuple(spec.get("args", ())),
        env=env,
        memory_mib=spec["resources"]["memory_mib"],
        fuel=spec["resources"].get("fuel"),
        output_max=bounds.RESPONSE_MAX,
        granted=frozenset(granted(spec)),
    )
