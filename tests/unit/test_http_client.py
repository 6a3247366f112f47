"""The HTTP client against a server that fails: retries, errors from problem documents, streams that are cut."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from hanzo_compute import errors
from hanzo_compute.adapters.http import ApiClient, HttpLeaseApi, JobsClient
from hanzo_compute.adapters.http.client import RETRY_AFTER_MAX
from hanzo_compute.adapters.http.problem import error_of
from hanzo_compute.model.outcome import Category, Outcome, Usage
from hanzo_compute.ports import Beat, Lease, LeaseApi, LogEntry, Report, Want
from tests.support.fake_api import KEY, FakeApi, Fault, Run

SPEC = {"source": {"code": "print(1)", "language": "python"}}


class Slept(list[float]):
    """A sleep that only notes how long it was."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def slept() -> Slept:
    return Slept()


@pytest.fixture
def client(api: FakeApi, slept: Slept) -> Iterator[ApiClient]:
    client = ApiClient(api.url, KEY, timeout_s=60, sleep=slept)
    yield client
    client.close()


@pytest.fixture
def jobs(client: ApiClient, slept: Slept) -> JobsClient:
    return JobsClient(client, sleep=slept)


def test_every_error_class_survives_the_wire() -> None:
    for cls in errors.subclasses():
        document = {"code": cls.code, "detail": "why", "hint": "what next", "status": cls.status, "state": "running"}
        error = error_of(cls.status, {}, json.dumps(document).encode())
        assert type(error) is errors.by_code()[cls.code]
        assert (error.message, error.hint, error.data) == ("why", "what next", {"state": "running"})


def test_field_problems_survive_the_wire(jobs: JobsClient) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        jobs.validate(SPEC | {"argz": []})
    assert [(field.field, field.hint) for field in caught.value.fields] == [("argz", "did you mean args?")]


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthenticated),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.PayloadTooLarge),
        (418, errors.InvalidRequest),
        (429, errors.RateLimited),
        (500, errors.InternalError),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.Unavailable),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code":"of a later release","errors":[3]}'])
def test_without_a_known_code_the_status_decides(status: int, cls: type[Exception], body: bytes) -> None:
    assert type(error_of(status, {}, body)) is cls


def test_a_get_is_repeated_until_it_succeeds(api: FakeApi, jobs: JobsClient, slept: Slept) -> None:
    api.faults = [Fault(503), Fault(0), Fault(429)]
    assert jobs.health().version == "9.9.9"
    assert len(slept) == 3
    assert len(api.calls("GET", "/healthz")) == 4


def test_it_gives_up_after_four_attempts(api: FakeApi, jobs: JobsClient, slept: Slept) -> None:
    api.faults = [Fault(503)] * 9
    with pytest.raises(errors.Unavailable):
        jobs.health()
    assert len(api.calls("GET", "/healthz")) == 4


def test_what_cannot_pass_is_not_repeated(api: FakeApi, jobs: JobsClient, slept: Slept) -> None:
    api.faults = [Fault(500)] * 2
    with pytest.raises(errors.InternalError):
        jobs.health()
    assert slept == []


def test_retry_after_is_a_floor_and_has_a_bound(api: FakeApi, jobs: JobsClient, slept: Slept) -> None:
    api.faults = [Fault(429, headers={"Retry-After": "7"})]
    jobs.health()
    assert 7 <= slept[0] <= 8
    api.faults = [Fault(429, headers={"Retry-After": str(int(RETRY_AFTER_MAX) + 1)})]
    with pytest.raises(errors.RateLimited) as caught:
        jobs.health()
    assert caught.value.data["retry_after_s"] == RETRY_AFTER_MAX + 1
    assert len(slept) == 1


def test_a_post_is_repeated_only_with_an_idempotency_key(api: FakeApi, jobs: JobsClient) -> None:
    api.faults = [Fault(0, after=True)]
    with pytest.raises(errors.Unavailable):
        jobs.submit(SPEC)
    assert len(api.jobs) == 1
    api.faults = [Fault(0, after=True)]
    submitted = jobs.submit(SPEC, idempotency_key="k")
    assert submitted.replayed
    assert len(api.jobs) == 2
    with pytest.raises(errors.IdempotencyMismatch):
        jobs.submit(SPEC | {"args": ["x"]}, idempotency_key="k")


def test_rerun_is_not_repeated(api: FakeApi, jobs: JobsClient) -> None:
    job = jobs.submit(SPEC).job["id"]
    api.faults = [Fault(503)]
    with pytest.raises(errors.Unavailable):
        jobs.rerun(job)
    assert len(api.jobs) == 1
    assert jobs.rerun(job)["origin"] == {"kind": "rerun", "job": job}


def test_nobody_listens(slept: Slept) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(errors.Unavailable) as caught:
            JobsClient(ApiClient(url, KEY, sleep=slept)).health()
    assert url in caught.value.message
    assert "refused" in caught.value.message
    assert "hzc up" in str(caught.value.hint)


def test_the_environment_s_proxy_is_not_used(api: FakeApi, jobs: JobsClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert jobs.health().version == "9.9.9"


@pytest.mark.parametrize("url", ["127.0.0.1:8787", "ftp://host", "http://", ""])
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        ApiClient(url)


def test_an_answer_that_is_not_json(api: FakeApi, slept: Slept) -> None:
    api.blobs["b1-x"] = b"<html>"
    anonymous = ApiClient(api.url, sleep=slept)
    with pytest.raises(errors.Unavailable, match="not Hanzo Compute"):
        anonymous.call("GET", "/_blobs/b1-x")


def test_blobs_go_by_presigned_url_and_only_once(api: FakeApi, jobs: JobsClient) -> None:
    data = bytes(range(256)) * 100
    blob = jobs.upload_blob(data)
    assert api.blobs[blob] == data
    assert jobs.upload_blob(data) == blob
    puts = api.calls("PUT", f"/_blobs/{blob}")
    assert len(puts) == 1
    assert "Authorization" not in puts[0][0]


def test_a_blob_comes_back_and_only_as_itself(api: FakeApi, jobs: JobsClient) -> None:
    blob = api.put_blob(b"data")
    assert jobs.blob(blob) == b"data"
    api.blobs[blob] = b"date"
    with pytest.raises(errors.Rejected, match="another digest"):
        jobs.blob(blob)
    with pytest.raises(errors.NotFound):
        jobs.blob("b1-x")


def test_a_lost_upload_is_repeated(api: FakeApi, jobs: JobsClient) -> None:
    api.faults = [Fault(0, after=True), Fault(0, after=True)]
    blob = jobs.upload_blob(b"data")
    assert api.blobs[blob] == b"data"


def test_an_output_over_its_size_is_refused(api: FakeApi, client: ApiClient) -> None:
    url = f"{api.url}/_blobs/{api.put_blob(b'12345')}"
    assert client.fetch(url, limit=5) == b"12345"
    with pytest.raises(errors.PayloadTooLarge):
        client.fetch(url, limit=4)
    with pytest.raises(errors.InvalidRequest):
        client.fetch("file:///etc/passwd", limit=4)


def test_lists_and_events_are_read_to_the_end(api: FakeApi, jobs: JobsClient) -> None:
    job = jobs.submit(SPEC | {"labels": {"a": "b"}}).job["id"]
    jobs.submit(SPEC)
    assert [event["type"] for event in jobs.events(job)] == ["submitted", "placed", "running", "succeeded"]
    assert [item["id"] for item in jobs.list_jobs(label="a=b").items] == [job]
    first = jobs.list_jobs(limit=2)
    assert len(first.items) == 1
    rest = jobs.list_jobs(limit=2, cursor=first.next_cursor)
    assert [item["id"] for item in rest.items] == [job]
    assert rest.next_cursor is None


def test_wait_polls_until_the_end(api: FakeApi, jobs: JobsClient) -> None:
    api.program = lambda _spec, _stdin: Run(ends=False)
    job = jobs.submit(SPEC).job["id"]
    assert jobs.wait(job, timeout_s=0.05)["state"] == "running"
    with pytest.raises(errors.Conflict) as caught:
        jobs.result(job)
    assert caught.value.data["state"] == "running"
    jobs.cancel(job)
    assert jobs.wait(job)["state"] == "cancelled"


def lines(count: int) -> list[tuple[str, str]]:
    return [("stdout", f"line {number}\n") for number in range(count)]


@pytest.mark.parametrize("cuts", [[], [0], [1], [2], [3], [1, 1, 1, 3], [0, 0, 5, 2, 1]])
def test_a_followed_log_survives_cuts_without_loss_or_repetition(
    api: FakeApi, jobs: JobsClient, cuts: list[int]
) -> None:
    api.program = lambda _spec, _stdin: Run(log=lines(9))
    api.stream_cuts = list(cuts)
    api.batch = 3
    job = jobs.submit(SPEC).job["id"]
    assert [entry["text"] for entry in jobs.follow(job)] == [text for _, text in lines(9)]
    assert api.stream_cuts == []
    resumed = [headers.get("Last-Event-ID") for headers, _ in api.calls("GET", f"/v1/jobs/{job}/logs")]
    assert resumed == sorted(resumed, key=lambda cursor: int(cursor or 0))
    # Each cut after a whole batch is taken up behind it, none at the beginning again.
    assert bool(resumed[-1]) == any(cut >= api.batch for cut in cuts)


def test_a_followed_log_is_live(api: FakeApi, jobs: JobsClient) -> None:
    api.program = lambda _spec, _stdin: Run(log=lines(1), ends=False)
    job = jobs.submit(SPEC).job["id"]
    followed = jobs.follow(job)
    assert next(followed)["text"] == "line 0\n"
    api.add_log(job, "stderr", "now")
    assert next(followed) == {"at": "2026-01-02T03:04:05.000Z", "stream": "stderr", "text": "now"}
    api.finish(job)
    assert list(followed) == []


def test_follow_polls_where_the_platform_cannot_stream(api: FakeApi, jobs: JobsClient) -> None:
    api.streams = False
    api.program = lambda _spec, _stdin: Run(log=lines(5))
    job = jobs.submit(SPEC).job["id"]
    assert [entry["text"] for entry in jobs.follow(job)] == [text for _, text in lines(5)]


def test_follow_reports_an_outage(api: FakeApi, client: ApiClient) -> None:
    times = iter(range(0, 1000, 25))
    jobs = JobsClient(client, sleep=lambda _: None, monotonic=lambda: next(times))
    job = jobs.submit(SPEC).job["id"]
    api.faults = [Fault(503)] * 5
    with pytest.raises(errors.Unavailable):
        list(jobs.follow(job))
    assert len(api.faults) == 1  # at 0, 25, 50 and 75 s; the fourth is over the minute


def test_follow_of_an_unknown_job(jobs: JobsClient) -> None:
    with pytest.raises(errors.NotFound):
        list(jobs.follow("j-nothing"))


def test_the_lease_api_speaks_the_protocol(api: FakeApi, client: ApiClient) -> None:
    leases: LeaseApi = HttpLeaseApi(client)
    item = {
        "job": "j-1",
        "attempt": 2,
        "runtime": "wasm",
        "spec": SPEC,
        "lease_ms": 15000,
        "timeout_ms": 60000,
        "timeout_is_deadline": False,
        "input_url": api.url,
        "of_a_later_release": 1,
    }
    refusal = {"code": "stale_fence", "detail": "attempt 3 holds the job", "status": 409}
    api.lease_answers = {
        "": {"leases": [item]},
        "j-1/heartbeat": {"cancel": "cancelled", "follow": True},
        "j-1/logs": {},
        "complete": {"results": [{"job": "j-1", "state": "succeeded"}, {"job": "j-2", "problem": refusal}]},
        "j-1/release": {},
    }
    assert leases.lease(Want("local", "a-1", "ab" * 32, 4), 0.5) == [
        Lease("j-1", 2, "wasm", SPEC, 15000, 60000, False, None, api.url, False)
    ]
    assert leases.heartbeat("j-1", 2, seen=Beat(None, False), wait_s=0.1) == Beat("cancelled", True)
    leases.logs("j-1", 2, 1, [LogEntry(5, "stdout", "hi")])
    blob = leases.upload("j-1", 2, b"output")
    assert api.blobs[blob] == b"output"
    assert leases.download(f"{api.url}/_blobs/{blob}") == b"output"
    outcome = Outcome(category=Category.OK, exit_code=0, usage=Usage(wall_ms=1))
    tail = [LogEntry(6, "stderr", "x")]
    reports = [Report("j-1", 2, outcome, 2, tail), Report("j-2", 1, outcome)]
    state, refused = leases.complete(reports, want=Want("local", "a-1", "ab" * 32)).states
    assert state == "succeeded"
    assert isinstance(refused, errors.StaleFence)
    assert refused.message == "attempt 3 holds the job"
    leases.release("j-1", 2, "drain")
    sent = {path: json.loads(body) for _, path, _, body in api.requests if path.startswith("/v1/leases")}
    assert sent["/v1/leases"] == {
        "pool": "local",
        "agent": "a-1",
        "key": "ab" * 32,
        "limit": 4,
        "wait_s": 0.5,
    }
    assert sent["/v1/leases/j-1/heartbeat"]["seen"] == {"cancel": None, "follow": False}
    assert sent["/v1/leases/j-1/logs"]["entries"] == [{"at_ms": 5, "stream": "stdout", "text": "hi"}]
    first, second = sent["/v1/leases/complete"]["reports"]
    assert (first["job"], first["attempt"], first["outcome"]) == ("j-1", 2, outcome.as_json())
    assert (first["log"]["seq"], "log" in second) == (2, False)
    assert sent["/v1/leases/complete"]["want"] == {"pool": "local", "agent": "a-1", "key": "ab" * 32, "limit": 1}
    assert sent["/v1/leases/j-1/release"] == {"attempt": 2, "reason": "drain"}


def test_a_stale_fence_is_told_apart(api: FakeApi, client: ApiClient, slept: Slept) -> None:
    api.faults = [Fault(409, {"code": "stale_fence", "detail": "attempt 3 holds the job"})]
    with pytest.raises(errors.StaleFence):
        HttpLeaseApi(client).release("j-1", 2, "drain")
    api.faults = [Fault(503)]
    with pytest.raises(errors.Unavailable):
        HttpLeaseApi(client).lease(Want("local", "a-1", "ab" * 32), 0)
    assert slept == []
