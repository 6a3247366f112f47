"""What the host calls of one call of a function do: capabilities checked, errors turned into statuses."""

from __future__ import annotations

import logging
import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic_core import from_json, to_json

from hanzo_compute.errors import ComputeError, NotFound
from hanzo_compute.model import bounds
from hanzo_compute.model.capabilities import Capabilities
from hanzo_compute.ports import Clock, Egress, EgressRequest, GuestRefusal, Operation, Seen, Status
from hanzo_compute.services import kv, secrets
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

OUTPUT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
RESERVED: Final = frozenset({"stdout", "stderr", "response"})
"""Names that a call's own streams have."""
_VERSION: Final = struct.Struct("<q")
_HEAD: Final = frozenset({"method", "url", "headers", "redirect"})
_REDIRECTS: Final = frozenset({"manual", "follow"})


@dataclass(frozen=True, slots=True)
class CallOf:
    """Whose call it is."""

    tenant: str
    function: str
    version: int
    call: str
    """Its id: the same when the call is run again, so that requests are recognised."""
    deadline: float
    """When it ends at the latest, by the clock's ``monotonic``."""

    @property
    def reference(self) -> str:
        """The version in the form that people write."""
        return f"{self.function}@{self.version}"


class Reach(Protocol):
    """Where what a call asks for lies."""

    def entry(self, key: bytes, fresh: bool) -> Seen:
        """A key-value entry. Raises ComputeError."""
        ...

    def secret(self, name: str) -> bytes | None:
        """A secret, on record as read by this call before it is given; None: there is none. Raises ComputeError."""
        ...

    def input(self) -> bytes:
        """The whole input. Raises GuestRefusal."""
        ...


class GuestHost:
    """The :class:`~hanzo_compute.ports.GuestService` of one call: used by one thread, then read for what it left.

    ``egress`` None: no way out. ``fresh``: when the call is run again after a conflict.
    """

    def __init__(
        self,
        reach: Reach,
        clock: Clock,
        of: CallOf,
        capabilities: Capabilities,
        egress: Egress | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        self._reach = reach
        self._clock = clock
        self.of = of
        """Whose call it is."""
        self._capabilities = capabilities
        self.granted = frozenset(capabilities.granted)
        """Names of its capabilities."""
        self._egress = egress
        self._input: bytes | None = None
        self._origins = frozenset(capabilities.http)
        self._outputs: dict[str, bytearray] = {}
        self._outputs_size = 0
        self._lines_size = 0
        self.buffer = kv.Buffer(reach.entry, fresh=fresh)
        """The key-value entries of the call."""
        self.lines: list[tuple[str, str]] = []
        """Level and text of what it logged, refusals among it; as much as one chunk of a log holds."""
        self.counts: Counter[str] = Counter()
        """Calls by function."""
        self.egress_bytes = 0
        """Bytes to and from other hosts."""

    @property
    def outputs(self) -> dict[str, bytes]:
        """Outputs by name."""
        return {name: bytes(data) for name, data in self._outputs.items()}

    def log(self, level: str, text: str) -> None:
        """Take a line of the call's log; what is too much is dropped."""
        size = len(text.encode("utf-8", "surrogatepass"))
        if len(self.lines) < bounds.LOG_ENTRIES_MAX and self._lines_size + size <= bounds.LOG_CHUNK_MAX:
            self._lines_size += size
            self.lines.append((level, text))

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """Do what a host call asks for; see :class:`~hanzo_compute.ports.GuestService`."""
        self.counts[name] += 1
        work = _WORK.get(name)
        try:
            if work is None:
                raise GuestRefusal(Status.INVALID, f"there is no host call {name}")
            capability, method = work
            if capability not in self.granted:
                raise GuestRefusal(Status.DENIED, f"{name}: the function was not granted {capability}")
            status, result = getattr(self, method)(*args)
            return int(status), result
        except GuestRefusal as refusal:
            self.log("warning", refusal.why)
            return int(refusal.status), b""
        except ComputeError as error:
            log.warning("host call %s of %s: %s", name, self.of.reference, error.message)
            self.log("warning", f"{name}: the platform cannot answer now")
            return int(Status.UNAVAILABLE), b""
        except Exception:  # whatever it is, the guest's call goes on
            log.exception("host call %s of %s failed", name, self.of.reference)
            self.log("warning", f"{name}: the platform failed on this")
            return int(Status.UNAVAILABLE), b""

    def _kv_get(self, key: bytes) -> tuple[int, bytes]:
        found = self.buffer.get(key)
        if found is None:
            return Status.NOT_FOUND, b""
        value, version = found
        return len(value), _VERSION.pack(version) + value

    def _kv_put(self, key: bytes, value: bytes, expect: int) -> tuple[int, bytes]:
        return self.buffer.put(key, value, expect), b""

    def _kv_delete(self, key: bytes, expect: int) -> tuple[int, bytes]:
        return self.buffer.delete(key, expect), b""

    def _secret(self, given: bytes) -> tuple[int, bytes]:
        name = given.decode("utf-8", "replace")
        if name not in self._capabilities.secrets:
            raise GuestRefusal(Status.DENIED, f"secret: {name[:64]!r} was not granted")
        value = self._reach.secret(name)
        if value is None:
            raise GuestRefusal(Status.NOT_FOUND, f"secret: there is none of the name {name}; hzc secret set {name}")
        return len(value), value

    def _http(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        asked = _head(head)
        left = self.of.deadline - self._clock.monotonic()
        if left <= 0:
            raise GuestRefusal(Status.TIMED_OUT, "http: no time is left")
        if self._egress is None:
            raise GuestRefusal(Status.DENIED, "http: this platform lets functions call no other hosts")
        request = EgressRequest(
            method=asked.get("method", "GET"),
            url=asked["url"],
            headers=list(asked.get("headers", {}).items()),
            body=body,
            origins=self._origins,
            idempotency_key=f"{self.of.call}/{self.counts['http']}",
            timeout_s=min(left, bounds.EGRESS_S_MAX),
            follow=asked.get("redirect") == "follow",
        )
        try:
            answer = self._egress.fetch(request)
        except GuestRefusal as refusal:
            self.egress_bytes += refusal.moved
            raise
        self.egress_bytes += answer.moved
        headers: dict[str, str] = {}
        for name, value in answer.headers:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        result = to_json({"status": answer.status, "headers": headers}) + b"\n" + answer.body
        return len(result), result

    def _input_size(self) -> tuple[int, bytes]:
        return len(self._whole_input()), b""

    def _input_read(self, offset: int, size: int) -> tuple[int, bytes]:
        if offset < 0 or size < 0:
            raise GuestRefusal(Status.INVALID, "input_read: offset and size are not negative")
        part = self._whole_input()[offset : offset + size]
        return len(part), part

    def _output(self, given: bytes, chunk: bytes) -> tuple[int, bytes]:
        name = given.decode("utf-8", "replace")
        if not OUTPUT_NAME.fullmatch(name) or name in RESERVED:
            raise GuestRefusal(Status.INVALID, f"output: {name[:80]!r} is no name for an output")
        if name not in self._outputs and len(self._outputs) >= bounds.CALL_OUTPUTS_MAX:
            raise GuestRefusal(Status.LIMIT, f"output: a call has at most {bounds.CALL_OUTPUTS_MAX} outputs")
        if self._outputs_size + len(chunk) > bounds.OUTPUT_MAX:
            raise GuestRefusal(Status.LIMIT, f"output: outputs are over {bounds.OUTPUT_MAX} bytes together")
        self._outputs_size += len(chunk)
        whole = self._outputs.setdefault(name, bytearray())
        whole += chunk
        return len(whole), b""

    def _whole_input(self) -> bytes:
        if self._input is None:
            self._input = self._reach.input()
        return self._input


class _Stored:
    """The platform's own reach: its store, vault and blobs."""

    def __init__(self, ctx: Context, of: CallOf, input_data: bytes | None, input_blob: str | None) -> None:
        self._ctx = ctx
        self._of = of
        self._audited: set[str] = set()
        self._input = input_data
        self._input_blob = input_blob

    def entry(self, key: bytes, fresh: bool) -> Seen:
        return kv.read(self._ctx, self._of.tenant, self._of.function, key, fresh=fresh)

    def secret(self, name: str) -> bytes | None:
        if name not in self._audited:  # before it is given: what was read and not written down cannot be
            secrets.record_read(self._ctx, self._of.tenant, self._of.reference, name, self._of.call)
            self._audited.add(name)
        return secrets.value(self._ctx, self._of.tenant, name)

    def input(self) -> bytes:
        if self._input is not None:
            return self._input
        if self._input_blob is None:
            raise GuestRefusal(Status.NOT_FOUND, "input: the call has none")
        try:
            return self._ctx.blobs.get(self._of.tenant, self._input_blob)
        except NotFound:
            raise GuestRefusal(Status.NOT_FOUND, "input: its blob is not there") from None


class FunctionHost(GuestHost):
    """The host of a call that this process answers. ``input_data`` or ``input_blob``: what ``input_read`` reads.

    ``fresh``: when the call is run again after a conflict.
    """

    buffer: kv.Session

    def __init__(
        self,
        ctx: Context,
        of: CallOf,
        capabilities: Capabilities,
        egress: Egress | None = None,
        *,
        input_data: bytes | None = None,
        input_blob: str | None = None,
        fresh: bool = False,
    ) -> None:
        super().__init__(_Stored(ctx, of, input_data, input_blob), ctx.clock, of, capabilities, egress)
        self.entries = self.buffer = kv.Session(ctx, of.tenant, of.function, fresh=fresh)

    def operations(self) -> list[Operation]:
        """What commits the call's entries: belongs to the transaction that accepts its outcome."""
        return self.entries.operations()


_WORK: Final = {
    "kv_get": ("kv", "_kv_get"),
    "kv_put": ("kv", "_kv_put"),
    "kv_delete": ("kv", "_kv_delete"),
    "secret": ("secrets", "_secret"),
    "http": ("http", "_http"),
    "input_size": ("input", "_input_size"),
    "input_read": ("input", "_input_read"),
    "output": ("outputs", "_output"),
}
"""Host calls: the capability that each needs, and what does it."""


def _head(text: bytes) -> dict[str, Any]:
    """The head of an HTTP request. Raises GuestRefusal: it is none."""
    try:
        found = from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        raise GuestRefusal(Status.INVALID, "http: the head is not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        raise GuestRefusal(Status.INVALID, "http: the head is an object with a url")
    unknown = sorted(set(found) - _HEAD)
    if unknown:
        raise GuestRefusal(Status.INVALID, f"http: the head has an unknown field {unknown[0][:80]!r}")
    headers = found.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise GuestRefusal(Status.INVALID, "http: headers is an object of strings")
    redirect = found.get("redirect", "manual")
    known = isinstance(redirect, str) and redirect in _REDIRECTS
    if not known or not isinstance(found.get("method", "GET"), str):
        raise GuestRefusal(Status.INVALID, "http: method is a string, redirect is manual or follow")
    return found
