"""A small platform behind real HTTP: it keeps jobs in memory and "runs" each with a Python function at submit.

It speaks the API of docs/api as far as a client can tell, and can be told to fail: refuse the next calls, cut an
event stream, lose an answer after the call took effect.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hanzo_compute.errors import ComputeError, Conflict, IdempotencyMismatch, NotFound, Unauthenticated
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.spec import digest
from hanzo_compute.services import batches, pricing
from tests.support.fake_functions import answer_functions, answer_secrets
from tests.support.proofs import Proofs, named_platform, succeeded

KEY = "hzk_0000000000000000000000TEST_secret"
STARTED = "2026-01-02T03:04:05.000Z"
ENDED = "2026-01-02T03:04:06.500Z"
Body = dict[str, Any]


@dataclass
class Run:
    """What a job did: log entries ``(stream, text)``, standard output, how it ended."""

    log: list[tuple[str, str]] = field(default_factory=list)
    stdout: bytes = b""
    state: str = "succeeded"
    outcome: Body = field(default_factory=dict)
    ends: bool = True
    """False: it keeps running until :meth:`FakeApi.finish`."""


@dataclass
class Fault:
    """How one call goes wrong: an answer of this status, or none at all (0), before or after taking effect."""

    status: int
    body: Body | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False


class FakeApi:
    """The platform; ``url`` once it serves. Attributes may be changed while it does."""

    def __init__(self) -> None:
        self.program: Callable[[Body, bytes], Run] = lambda _spec, _stdin: Run()
        self.jobs: dict[str, Body] = {}
        platform, self.ids = named_platform()
        succeeded(platform)
        self.proofs = Proofs(platform)
        """What is quoted, logged and proven is made by the services."""
        self.receipts: set[str] = set()
        self.runs: dict[str, Run] = {}
        self.blobs: dict[str, bytes] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.faults: list[Fault] = []
        self.stream_cuts: list[int] = []
        """Log events after which the next streams are cut."""
        self.batch = 2
        self.streams = True
        """False: logs are only given in pages, as on AWS."""
        self.date: str | None = None
        """The Date header, instead of the time."""
        self.lease_answers: dict[str, Any] = {}
        """What ``/v1/leases/…`` answers, by the rest of the path."""
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.changed = threading.Condition()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[FakeApi]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            for job in self.runs:
                self.finish(job)
            self.server.shutdown()
            thread.join()
            self.server.server_close()

    def calls(self, method: str, path: str) -> list[tuple[dict[str, str], bytes]]:
        """Headers and bodies of the calls of a method to a path."""
        return [(headers, body) for m, p, headers, body in self.requests if (m, p) == (method, path)]

    def finish(self, job: str, state: str = "succeeded") -> None:
        """End a job that was left running."""
        with self.changed:
            if not self.runs[job].ends:
                self.runs[job].ends = True
                self._end(job, state)
            self.changed.notify_all()

    def add_log(self, job: str, stream: str, text: str) -> None:
        """A running job says something."""
        with self.changed:
            self.runs[job].log.append((stream, text))
            self.changed.notify_all()

    # Jobs

    def submit(self, body: Body, key: str | None = None, origin: Body | None = None) -> tuple[int, Body, Body]:
        spec = parse_spec(body)
        mark = digest(spec.as_json())
        if key is not None and key in self.keys:
            job, used = self.keys[key]
            if used != mark:
                raise IdempotencyMismatch("this idempotency key was used with another body", hint="use a new key")
            return 200, self.jobs[job], {"Idempotency-Replayed": "true"}
        job = f"j-{len(self.jobs):026d}"
        if key is not None:
            self.keys[key] = (job, mark)
        given = spec.input
        stdin = b"" if given is None else self.blobs[given.blob] if given.blob else given.data()
        run = self.program(spec.as_json(), stdin)
        self.runs[job] = run
        self.jobs[job] = {
            "id": job,
            "state": "running",
            "runtime": "wasm",
            "attempt": 1,
            "created_at": STARTED,
            "updated_at": STARTED,
            "started_at": STARTED,
            "labels": spec.labels,
            "failures": 0,
            "lapses": 0,
            "pool": "local",
            "agent": "agent-1",
            "spec": spec.as_json(),
        }
        if origin:
            self.jobs[job]["origin"] = origin
        if run.ends:
            self._end(job, run.state)
        return 201, self.jobs[job], {"Location": f"/v1/jobs/{job}"}

    def _end(self, job: str, state: str) -> None:
        run = self.runs[job]
        size = len(run.stdout)
        output: Body = {"name": "stdout", "size": size}
        if size > 16384:
            output["blob"] = self.put_blob(run.stdout)
        else:
            output["inline_base64"] = base64.b64encode(run.stdout).decode()
        usage = {
            "wall_ms": 1500,
            "cpu_ms": 1400,
            "memory_peak_bytes": 32 << 20,
            "memory_mib_ms": 384_000,
            "fuel": 123_456_789,
            "gpu_ms": 0,
            "egress_bytes": 0,
        }
        outcome = {
            "category": "ok" if state == "succeeded" else "exit",
            "detail": "",
            "exit_code": 0 if state == "succeeded" else 3,
            "oom": False,
            "child_oom": False,
            "timed_out": False,
            "truncated": [],
            "outputs": [output],
            "usage": usage,
            "runtime_version": "fake 1",
        }
        found = None if run.outcome.get("category") == "none" else outcome | run.outcome
        self.jobs[job] |= {"state": state, "finished_at": ENDED, "updated_at": ENDED}
        if found is not None:
            self.jobs[job] |= {"outcome": found, "category": found["category"]}

    def put_blob(self, data: bytes) -> str:
        blob = f"b1-{hashlib.sha256(data).hexdigest()}"
        self.blobs[blob] = data
        return blob

    def job(self, job: str) -> Body:
        if job not in self.jobs:
            raise NotFound(f"there is no job {job}", hint="hzc ls lists your jobs")
        return self.jobs[job]

    def log(self, job: str, cursor: str) -> tuple[list[Body], str, bool]:
        run, at = self.runs[job], int(cursor or 0)
        items = [{"at": STARTED, "stream": s, "text": t} for s, t in run.log[at : at + self.batch]]
        after = at + len(items)
        return items, str(after), run.ends and after == len(run.log)

    def wait_for(self, ready: Callable[[], bool], seconds: float) -> None:
        with self.changed:
            self.changed.wait_for(ready, seconds)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(_Handler):
            fake = api

        return Handler


class _Handler(BaseHTTPRequestHandler):
    fake: FakeApi
    protocol_version = "HTTP/1.1"

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The Date header."""
        return self.fake.date or super().date_time_string(timestamp)  # type: ignore[arg-type]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        self.parts = urlsplit(self.path)
        self.query = dict(parse_qsl(self.parts.query))
        self.data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fake.requests.append((self.command, self.parts.path, dict(self.headers), self.data))
        fault = self.fake.faults.pop(0) if self.fake.faults else None
        if fault is not None and not fault.after:
            self._fail(fault)
            return
        try:
            answer = self._route([part for part in self.parts.path.split("/") if part])
        except ComputeError as error:
            self._problem(error)
            return
        if fault is not None:
            self._fail(fault)
        elif answer is not None:
            self._answer(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _route(self, path: list[str]) -> tuple[int, Any, Body] | None:
        if path[:1] == ["_blobs"]:
            return self._blob(path[1])
        if path == ["healthz"]:
            return 200, {"status": "ok", "version": "9.9.9"}, {}
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            raise Unauthenticated("this credential is not known", hint="check HZC_KEY")
        fake = self.fake
        body = json.loads(self.data) if self.data else None
        if path[1:2] == ["functions"]:
            return answer_functions(fake.proofs.platform, fake.blobs, self.command, path[2:], self.query, body)
        if path[1:2] in (["secrets"], ["audit"]):
            return answer_secrets(fake.proofs.platform, self.command, path[1:], self.query, body)
        match (self.command, path[1:]):
            case ("POST", ["jobs"]):
                return fake.submit(body, self.headers.get("Idempotency-Key"))
            case ("POST", ["validate"]):
                spec = parse_spec(body).as_json()
                return 200, {"valid": True, "spec": spec, "digest": digest(spec)}, {}
            case ("GET", ["jobs"]):
                return self._list(list(fake.jobs.values()))
            case ("GET", ["dead-letters"]):
                return self._list([job for job in fake.jobs.values() if job["state"] == "dead"])
            case ("GET", ["jobs", job]):
                view = fake.job(job)
                if "seen_state" in self.query:
                    fake.wait_for(lambda: view["state"] != self.query["seen_state"], float(self.query["wait_s"]))
                return 200, view, {}
            case ("GET", ["jobs", job, "events"]):
                return self._events(fake.job(job))
            case ("GET", ["jobs", job, "logs"]):
                fake.job(job)
                return self._logs(job)
            case ("GET", ["jobs", job, "result"]):
                return self._result(fake.job(job))
            case ("GET", ["jobs", job, "outputs"]):
                return 200, {"items": self._outputs(fake.job(job)), "next_cursor": None}, {}
            case ("POST", ["jobs", job, "cancel"]):
                if "finished_at" in fake.job(job):
                    raise Conflict(f"job {job} has ended", state=fake.jobs[job]["state"])
                fake.finish(job, "cancelled")
                return 200, fake.jobs[job], {}
            case ("POST", ["jobs", job, "rerun"]):
                return fake.submit(fake.job(job)["spec"], origin={"kind": "rerun", "job": job})
            case ("POST", ["dead-letters", job, "redrive"]):
                if fake.job(job)["state"] != "dead":
                    raise Conflict(f"job {job} is not dead")
                return fake.submit(fake.jobs[job]["spec"], origin={"kind": "redrive", "job": job})
            case ("POST", ["blobs"] | ["leases", _, "blobs"]):
                return self._new_blob(body["sha256"], body["size"])
            case ("GET", ["blobs", blob]):
                if blob not in fake.blobs:
                    raise NotFound(f"no blob {blob}")
                return 200, {"id": blob, "url": f"{fake.url}/_blobs/{blob}", "url_expires_at": ENDED}, {}
            case ("POST", ["quotes"]):
                quote = pricing.quote(fake.proofs.platform.ctx, parse_spec(body), "wasm")
                return 200, quote.as_json(), {}
            case ("GET", ["jobs", job, "receipt"]):
                if job not in fake.receipts:
                    fake.ids.jobs.append(job)
                    succeeded(fake.proofs.platform)
                    fake.receipts.add(job)
                return 200, fake.proofs.receipt(job), {}
            case ("GET", ["invocations", invocation, "receipt"]):
                found = batches.receipt(fake.proofs.platform.ctx, "acme", invocation).receipt
                pending = {"status": "pending", "invocation": invocation}
                return (202, pending, {}) if found is None else (200, found, {})
            case ("GET", ["log", "checkpoint"]):
                return 200, fake.proofs.checkpoint(), {}
            case ("GET", ["log", "consistency"]):
                old, new = int(self.query["from"]), int(self.query["to"])
                return 200, {"hashes": [node.hex() for node in fake.proofs.consistency(old, new)]}, {}
            case ("GET", ["log", "entries"]):
                found = fake.proofs.entries(int(self.query["start"]))
                return 200, {"leaves": base64.b64encode(found).decode()}, {}
            case ("POST", ["leases", *rest]):
                return 200, fake.lease_answers["/".join(rest)], {}
        raise NotFound(f"there is no {self.parts.path}")

    def _list(self, jobs: list[Body]) -> tuple[int, Body, Body]:
        jobs = [job for job in reversed(jobs) if self.query.get("state", job["state"]) == job["state"]]
        if "label" in self.query:
            name, _, value = self.query["label"].partition("=")
            jobs = [job for job in jobs if job["labels"].get(name) == value]
        # One less than asked for: a page may be short though more follows.
        start, count = int(self.query.get("cursor", 0)), max(1, int(self.query.get("limit", 20)) - 1)
        more = str(start + count) if start + count < len(jobs) else None
        return 200, {"items": jobs[start : start + count], "next_cursor": more}, {}

    def _events(self, job: Body) -> tuple[int, Body, Body]:
        kinds = ["submitted", "placed", "running"] + ([job["state"]] if "finished_at" in job else [])
        events = [
            {"seq": seq, "at": f"2026-01-02T03:04:05.{seq * 100:03d}Z", "type": kind, "data": {"pool": "local"}}
            for seq, kind in enumerate(kinds, 1)
        ]
        start = int(self.query.get("cursor", 0))
        more = str(start + 2) if start + 2 < len(events) else None
        return 200, {"items": events[start : start + 2], "next_cursor": more}, {}

    def _result(self, job: Body) -> tuple[int, Body, Body]:
        if "finished_at" not in job:
            raise Conflict("the job has not ended", hint=f"hzc logs -f {job['id']}", state=job["state"])
        found = {"id": job["id"], "state": job["state"], "outcome": job.get("outcome")}
        return 200, found | ({} if "outcome" in job else {"reason": "cancelled by the owner"}), {}

    def _outputs(self, job: Body) -> list[Body]:
        outputs = (job.get("outcome") or {"outputs": []})["outputs"]
        found = []
        for output in outputs:
            data = self.fake.runs[job["id"]].stdout
            url = f"{self.fake.url}/_blobs/{self.fake.put_blob(data)}?signature=s"
            found.append(output | {"url": url, "url_expires_at": ENDED})
        return found

    def _new_blob(self, sha256: str, size: int) -> tuple[int, Body, Body]:
        blob = f"b1-{sha256}"
        upload = {"url": f"{self.fake.url}/_blobs/{blob}?size={size}", "method": "PUT", "expires_at": ENDED}
        exists = blob in self.fake.blobs
        return 200, {"id": blob, "size": size, "exists": exists, "upload": None if exists else upload}, {}

    def _blob(self, blob: str) -> tuple[int, Any, Body]:
        if "Authorization" in self.headers:
            raise Conflict("a presigned URL takes no credential")
        if self.command == "PUT":
            assert blob == f"b1-{hashlib.sha256(self.data).hexdigest()}"
            self.fake.blobs[blob] = self.data
            return 200, {}, {}
        return 200, self.fake.blobs[blob], {}

    def _logs(self, job: str) -> tuple[int, Any, Body] | None:
        fake = self.fake
        if self.fake.streams and "text/event-stream" in self.headers.get("Accept", ""):
            self._stream(job)
            return None
        cursor = self.query.get("cursor", "")
        if self.query.get("follow") == "1":
            fake.wait_for(lambda: bool(fake.log(job, cursor)[0]) or fake.log(job, cursor)[2], 1.0)
        items, cursor, done = fake.log(job, cursor)
        return 200, {"items": items, "cursor": cursor, "done": done}, {}

    def _stream(self, job: str) -> None:
        cut = self.fake.stream_cuts.pop(0) if self.fake.stream_cuts else None
        cursor = self.headers.get("Last-Event-ID") or self.query.get("cursor", "")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent, done = 0, False
        self._chunk(": welcome\n\n")
        deadline = time.monotonic() + 30
        while not done and time.monotonic() < deadline:
            items, after, done = self.fake.log(job, cursor)
            for number, item in enumerate(items, 1):
                if sent == cut:
                    self.close_connection = True
                    return
                mark = f"id: {after}\n" if number == len(items) else ""
                self._chunk(f"event: log\n{mark}data: {json.dumps(item)}\n\n")
                sent += 1
            if after == (cursor or "0") and not done:
                at = cursor
                self.fake.wait_for(lambda at=at: self.fake.log(job, at) != ([], at or "0", False), 1.0)
            cursor = after
        self._chunk(f"event: end\ndata: {json.dumps({'state': self.fake.jobs[job]['state']})}\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _problem(self, error: ComputeError) -> None:
        document = {"type": "about:blank", "title": error.title, "status": error.status, "code": error.code}
        document |= {"detail": error.message, "retryable": error.retryable, "request_id": "r-1"} | error.data
        if error.hint:
            document["hint"] = error.hint
        fields = getattr(error, "fields", ())
        if fields:
            document["errors"] = [one.as_json() for one in fields]
        self._answer(error.status, document, {"Content-Type": "application/problem+json"})

    def _fail(self, fault: Fault) -> None:
        if fault.status == 0:
            self.close_connection = True
            return
        self._answer(fault.status, fault.body or {}, fault.headers)

    def _answer(self, status: int, body: Any, headers: Body) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
