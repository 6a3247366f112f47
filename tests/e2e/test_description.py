"""A newcomer with a URL, keys and the description of the API uses every area of the platform."""

from __future__ import annotations

import base64
import hashlib
import urllib.request

import pytest

from hanzo_compute.security.authorizer import Role
from tests.support.described import Described
from tests.support.live import Platform, until

HELLO = "import sys\nprint('Hello,', sys.stdin.read())\n"
JOB = {"source": {"code": "print(6 * 7)", "language": "python"}}
EVENTS = "text/event-stream"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def api(platform: Platform) -> Described:
    return Described(platform.url, {"owner": platform.key, "runner": platform.tenant("platform", Role.RUNNER)})


def test_jobs_receipts_and_what_became_of_them(api: Described) -> None:
    made = api("SubmitJob", JOB, idempotency_key="described")
    assert made.status == 201
    job = made.json["id"]
    assert made.headers["Location"] == f"/v1/jobs/{job}"
    again = api("SubmitJob", JOB, idempotency_key="described")
    assert (again.status, again.json["id"], again.headers["Idempotency-Replayed"]) == (200, job, "true")
    assert job in [each["id"] for each in api("ListJobs", limit=100).json["items"]]
    assert api("GetJob", id="j-none").status == 404

    shown = made.json

    def ended() -> bool:
        nonlocal shown
        shown = api("GetJob", id=job, wait_s=5, seen_state=shown["state"]).json
        return bool(shown["state"] == "succeeded")

    until(ended, 120, "the job has succeeded")
    assert api("JobResult", id=job).json["state"] == "succeeded"
    (output,) = api("JobOutputs", id=job).json["items"]
    assert base64.b64decode(output["inline_base64"]) == b"42\n"
    assert api("JobEvents", id=job, limit=1).json["next_cursor"]
    assert "42" in api("JobLogs", id=job).json["items"][0]["text"]
    stream = api("JobLogs", id=job, accept=EVENTS)
    assert stream.media == EVENTS
    assert b"event: end" in stream.data
    assert until(lambda: api("JobReceipt", id=job, wait_s=10).status == 200, 60, "a receipt")
    assert api("JobTrace", id=job).json["job"] == job
    assert api("Attestations", id=job).json == {"items": []}
    assert api("CancelJob", id=job).status == 409


def test_functions_and_their_sites(api: Described) -> None:
    deployed = api(
        "DeployFunction", {"source": {"code": HELLO, "language": "python"}, "public": True}, name="described"
    )
    assert deployed.status == 201
    called = api("InvokeFunction", b"you", name="described")
    assert (called.status, called.media, called.data) == (200, "application/octet-stream", b"Hello, you\n")
    assert called.headers["X-Function"] == "described@1"
    events = api("InvokeFunction", b"you", name="described", accept=EVENTS)
    assert (events.media, b"Hello, you" in events.data) == (EVENTS, True)
    # Without a credential: the first of those that will do is none.
    page = api("SitePageGet", name="described", path="a/b", query={"x": "1"})
    assert b'"path": "/a/b", "query": "x=1"' in page.data
    assert api("SitePost", b"raw", name="described").data.endswith(b"\nraw\n")
    assert api("PutEntry", {"value": "v"}, name="described", key="k").status == 200
    assert api("GetEntry", name="described", key="k").json["value"] == "v"
    assert api("ListFunctions").json["items"]
    assert api("RemoveFunction", name="described").json["removed"] is True


def test_the_other_areas(api: Described) -> None:
    assert api("Health").json["status"] == "ok"
    data = b"described"
    asked = api("CreateBlob", {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}).json
    upload = urllib.request.Request(asked["upload"]["url"], data, method=asked["upload"]["method"])
    with urllib.request.urlopen(upload, timeout=30) as stored:
        assert stored.status == 200
    assert api("GetBlob", id=asked["id"]).json["size"] == len(data)
    assert api("PutSecret", {"value": "s"}, name="described").json["version"] == 1
    assert api("ListReads", secret="described").json["items"] == []
    yearly = {"cron": "0 0 1 1 *", "jobs": [JOB], "paused": True}
    assert api("PutSchedule", yearly, name="described", if_none_match="*").headers["ETag"] == '"1"'
    assert api("PutSchedule", yearly, name="described", if_none_match="*").status == 409
    assert api("DeleteSchedule", name="described", if_match='"1"').status == 200
    assert api("GetPolicy", name="production").json["name"] == "production"
    assert api("PutPolicy", {"policy": "nonsense"}, name="described").json["errors"][0]["field"] == "policy"
    assert api("Regimes").json["routing"] == "hllm"
    leased = api("Lease", {"pool": "nobody", "agent": "described", "key": "ab" * 32})
    assert leased.json == {"leases": []}
    assert api("HeldLease", job="j-01ARZ3NDEKTSV4RRFFQ69G5FAV", attempt=1).status in (404, 409)
