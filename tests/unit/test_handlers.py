"""The HTTP functions on memory twins: real events in, real responses out."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from hanzo_compute.security.authorizer import Role
from hanzo_compute.wiring import Container
from tests.support.handlers import A1, ROUTES, SPEC, Client, hand_in, place, run, signed

RUNNERS = {
    *(f"POST /v1/attestation/{name}" for name in ("challenges", "activations", "appraisals")),
    "POST /v1/jobs/{id}/key",
}
"""Routes for agents, besides those of leases."""


class TestSubmit:
    def test_a_job_is_created_and_shown(self, call: Client) -> None:
        made = call("POST", "/v1/jobs", SPEC)
        assert made.status == 201
        assert made.body["state"] == "queued"
        assert made.headers["location"] == f"/v1/jobs/{made.body['id']}"
        shown = call("GET", made.headers["location"]).body
        assert shown["spec"]["source"] == SPEC["source"]
        assert shown["spec"]["resources"] == {"memory_mib": 256, "timeout_s": 60}

    def test_the_same_key_gives_the_same_job(self, call: Client) -> None:
        first = call("POST", "/v1/jobs", SPEC, idempotency_key="k")
        again = call("POST", "/v1/jobs", SPEC, idempotency_key="k")
        assert (first.status, again.status) == (201, 200)
        assert again.body["id"] == first.body["id"]
        assert again.headers["idempotency-replayed"] == "true"

    def test_the_same_key_with_another_body_is_refused(self, call: Client) -> None:
        call("POST", "/v1/jobs", SPEC, idempotency_key="k")
        other = call("POST", "/v1/jobs", SPEC | {"args": ["x"]}, idempotency_key="k")
        assert (other.status, other.body["code"]) == (409, "idempotency_mismatch")
        assert other.headers["content-type"] == "application/problem+json"

    def test_keys_are_apart_by_tenant(self, call: Client, other: Client) -> None:
        mine = call("POST", "/v1/jobs", SPEC, idempotency_key="k").body["id"]
        theirs = other("POST", "/v1/jobs", SPEC | {"args": ["x"]}, idempotency_key="k")
        assert theirs.status == 201
        assert theirs.body["id"] != mine

    @pytest.mark.parametrize(
        ("spec", "code", "field"),
        [
            ({"sorce": {}}, "invalid_spec", "source"),
            (SPEC | {"webhook": "x"}, "not_supported", "webhook"),
            (SPEC | {"runtime": "docker"}, "not_supported", "runtime"),
            (SPEC | {"resources": {"gpu": 1}}, "not_supported", "resources.gpu"),
            (SPEC | {"resources": {"memory_mib": 0}}, "invalid_spec", "resources.memory_mib"),
            (SPEC | {"resources": {"memory_mib": "64"}}, "invalid_spec", "resources.memory_mib"),
            (SPEC | {"input": {"inline": "a", "blob": "b1-" + "0" * 64}}, "invalid_spec", "input"),
            (SPEC | {"input": {"blob": "b1-" + "0" * 64}}, "invalid_spec", "input.blob"),
            (SPEC | {"deadline": "2001-01-01T00:00:00Z"}, "invalid_spec", "deadline"),
            (SPEC | {"labels": {f"l{n}": "" for n in range(9)}}, "invalid_spec", "labels"),
            ([], "invalid_spec", "(body)"),
        ],
    )
    def test_a_bad_spec_names_its_field(self, call: Client, spec: Any, code: str, field: str) -> None:
        for path in ("/v1/jobs", "/v1/validate"):
            refused = call("POST", path, spec)
            assert (refused.status, refused.body["code"]) == (400, code)
            assert refused.body["errors"][0]["field"] == field

    @pytest.mark.parametrize("raw", ["{", "[" * 100_000, '{"a": NaN}', '"\\ud800"', "", "null", "\x00"])
    def test_a_body_that_is_not_json_is_refused(self, call: Client, raw: str) -> None:
        refused = call("POST", "/v1/jobs", raw=raw)
        assert refused.status == 400
        assert refused.body["errors"]

    def test_another_media_type_is_refused(self, call: Client) -> None:
        refused = call("POST", "/v1/jobs", raw="a=b", content_type="application/x-www-form-urlencoded")
        assert (refused.status, refused.body["errors"][0]["field"]) == (400, "Content-Type")

    def test_a_hint_names_what_was_meant(self, call: Client) -> None:
        refused = call("POST", "/v1/jobs", SPEC | {"resources": {"memroy_mib": 3}})
        assert "resources.memory_mib" in refused.body["errors"][0]["hint"]


class TestAuthorization:
    def test_every_route_but_health_needs_a_credential(self, call: Client) -> None:
        for key in ROUTES:
            method, path = key.split(" ")
            answer = call(method, path.replace("{id}", "x").replace("{job}", "x"), key=None)
            assert answer.status == (200 if path == "/healthz" else 401), key

    def test_a_role_does_only_its_own(self, call: Client, agent: Client) -> None:
        for key in ROUTES:
            method, path = key.split(" ")
            wrong = call if path.startswith("/v1/leases") or key in RUNNERS else agent
            answer = wrong(method, path.replace("{id}", "x").replace("{job}", "x"))
            assert answer.status == (200 if path == "/healthz" else 403), key

    @pytest.mark.parametrize("key", ["hzk_x", "nonsense", "hzk_" + "0" * 26 + "_" + "A" * 43])
    def test_an_unknown_key_is_refused(self, call: Client, key: str) -> None:
        refused = call("GET", "/v1/jobs", key=key)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")

    def test_a_wrong_secret_is_refused(self, call: Client) -> None:
        assert call("GET", "/v1/jobs", key=call.key[:-1] + ("A" if call.key[-1] != "A" else "B")).status == 401

    def test_another_tenants_job_is_not_there(self, container: Container, call: Client, other: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC | {"labels": {"a": "b"}}).body["id"]
        for path in ("", "/events", "/logs", "/result", "/outputs"):
            assert other("GET", f"/v1/jobs/{job}{path}").status == 404
        for path in (f"/v1/jobs/{job}/cancel", f"/v1/jobs/{job}/rerun", f"/v1/dead-letters/{job}/redrive"):
            assert other("POST", path).status == 404
        for query in ("", "?label=a=b", "?state=queued"):
            assert other("GET", f"/v1/jobs{query}").body["items"] == []
            assert [item["id"] for item in call("GET", f"/v1/jobs{query}").body["items"]] == [job]


class TestLeases:
    def test_a_job_runs_to_its_result(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        log = {"seq": 1, "entries": [{"at_ms": 1, "stream": "stdout", "text": "hello\n"}]}
        output = {"name": "stdout", "size": 6, "inline_base64": base64.b64encode(b"hello\n").decode()}
        run(container, agent, {"category": "ok", "exit_code": 0, "outputs": [output]}, log=log)
        result = call("GET", f"/v1/jobs/{job}/result").body
        assert (result["state"], result["outcome"]["exit_code"]) == ("succeeded", 0)
        assert call("GET", f"/v1/jobs/{job}/outputs").body["items"] == [output]
        page = call("GET", f"/v1/jobs/{job}/logs").body
        assert [item["text"] for item in page["items"]] == ["hello\n"]
        assert call("GET", f"/v1/jobs/{job}/logs?cursor={page['cursor']}").body["done"] is True
        events = call("GET", f"/v1/jobs/{job}/events").body["items"]
        assert [event["type"] for event in events] == ["submitted", "placed", "running", "succeeded"]
        assert [event["seq"] for event in events] == [1, 2, 3, 4]

    def test_an_idle_lease_call_is_parked_on_its_pool(self, agent: Client) -> None:
        answer = agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1, "wait_s": 5})
        assert answer.body == {"leases": []}
        assert (answer.headers["hzc-wake"], answer.headers["hzc-wait"]) == ("POOL#local", "5.0")

    def test_a_heartbeat_hears_of_a_cancel(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        place(container)
        agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1})
        beat = {"attempt": 1, "seen": {"cancel": None, "follow": False}, "wait_s": 5}
        quiet = agent("POST", f"/v1/leases/{job}/heartbeat", beat)
        assert quiet.headers["hzc-wake"] == f"JOB#{job}"
        assert call("POST", f"/v1/jobs/{job}/cancel").body["cancel_requested"] == "cancelled"
        told = agent("POST", f"/v1/leases/{job}/heartbeat", beat)
        assert (told.body["cancel"], "hzc-wake" in told.headers) == ("cancelled", False)

    def test_a_stale_attempt_is_refused(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        run(container, agent, {"category": "ok", "exit_code": 0})
        for path, body in (
            ("heartbeat", {"attempt": 1}),
            ("release", {"attempt": 1, "reason": "x"}),
            ("logs", {"attempt": 1, "seq": 1, "entries": []}),
            ("blobs", {"attempt": 1, "sha256": "0" * 64, "size": 1}),
        ):
            refused = agent("POST", f"/v1/leases/{job}/{path}", body)
            assert (refused.status, refused.body["code"]) == (409, "stale_fence"), path
        assert hand_in(agent, job, {"category": "ok"}, attempt=2)["problem"]["code"] == "stale_fence"

    def test_another_lessee_is_refused(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        place(container)
        agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1})
        thief = Client(container, "someone", Role.RUNNER)
        refused = hand_in(thief, job, {"category": "ok"})["problem"]
        assert (refused["status"], refused["code"]) == (409, "stale_fence")

    def test_the_next_attempt_comes_with_the_answer_to_an_outcome(
        self, container: Container, call: Client, agent: Client
    ) -> None:
        jobs = {call("POST", "/v1/jobs", SPEC | {"args": [name]}).body["id"] for name in ("1", "2")}
        place(container)
        want = {"pool": "local", "agent": "a1", "key": A1}
        (first,) = agent("POST", "/v1/leases", want).body["leases"]
        report = signed(agent, {"job": first["job"], "attempt": 1, "outcome": {"category": "ok", "exit_code": 0}})
        answer = agent("POST", "/v1/leases/complete", {"reports": [report], "want": want}).body
        (second,) = answer["leases"]
        assert answer["results"] == [{"job": first["job"], "state": "succeeded"}]
        assert {first["job"], second["job"]} == jobs

    def test_reports_of_one_call_have_results_of_their_own(
        self, container: Container, call: Client, agent: Client
    ) -> None:
        jobs = [call("POST", "/v1/jobs", SPEC | {"args": [name]}).body["id"] for name in ("1", "2", "3")]
        place(container)
        leases = agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1, "limit": 8}).body["leases"]
        assert {lease["job"] for lease in leases} == set(jobs)
        output = {"name": "stdout", "size": 9, "blob": f"b1-{'0' * 64}"}
        outcomes = [{"category": "ok"}, {"category": "ok", "outputs": [output]}, {"category": "exit", "exit_code": 3}]
        reports = [
            signed(agent, {"job": job, "attempt": 1, "outcome": outcome})
            for job, outcome in zip(jobs, outcomes, strict=True)
        ]
        body = {"reports": [*reports, {**reports[0], "attempt": 2}, {**reports[0], "job": "j-unknown"}]}
        results = agent("POST", "/v1/leases/complete", body).body["results"]
        assert [found["job"] for found in results] == [*jobs, jobs[0], "j-unknown"]
        assert [found.get("state") or found["problem"]["code"] for found in results] == [
            "succeeded",
            "invalid_request",
            "failed",
            "stale_fence",
            "not_found",
        ]
        again = agent("POST", "/v1/leases/complete", {"reports": [reports[0], reports[2]]}).body["results"]
        assert [found["state"] for found in again] == ["succeeded", "failed"]
        assert call("GET", f"/v1/jobs/{jobs[1]}").body["state"] == "running"

    def test_an_output_must_have_been_uploaded(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        place(container)
        agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1})
        data = b"x" * 20_000
        digest = hashlib.sha256(data).hexdigest()
        output = {"name": "stdout", "size": len(data), "blob": f"b1-{digest}"}
        outcome = {"category": "ok", "outputs": [output]}
        refused = hand_in(agent, job, outcome)["problem"]
        assert (refused["status"], refused["errors"][0]["field"]) == (400, "outcome.outputs.0.blob")
        asked = agent("POST", f"/v1/leases/{job}/blobs", {"attempt": 1, "sha256": digest, "size": len(data)})
        assert asked.body["upload"]["method"] == "PUT"
        container.blobs.put("t1", data)
        assert hand_in(agent, job, outcome) == {"state": "succeeded"}
        shown = call("GET", f"/v1/jobs/{job}/outputs").body["items"][0]
        assert shown["url"].startswith("memory://")


class TestRead:
    def test_a_blob_is_its_tenants(self, container: Container, call: Client, other: Client) -> None:
        blob = container.blobs.put("t1", b"data")
        found = call("GET", f"/v1/blobs/{blob}")
        assert (found.status, found.body["id"], found.body["size"]) == (200, blob, 4)
        assert found.body["url"].startswith("memory://")
        for missing in (other("GET", f"/v1/blobs/{blob}"), call("GET", "/v1/blobs/b1-0"), call("GET", "/v1/blobs/x")):
            assert (missing.status, missing.body["code"]) == (404, "not_found")

    def test_pages_are_newest_first_and_complete(self, container: Container, call: Client) -> None:
        made = []
        for _ in range(7):
            container.clock.sleep(1)
            made.append(call("POST", "/v1/jobs", SPEC | {"labels": {"a": "b"}}).body["id"])
        for query in ("", "&state=queued", "&label=a=b", "&label=a=b&state=queued"):
            seen, cursor = [], ""
            while True:
                page = call("GET", f"/v1/jobs?limit=3{query}{cursor}").body
                seen += [item["id"] for item in page["items"]]
                if page["next_cursor"] is None:
                    break
                cursor = f"&cursor={page['next_cursor']}"
            assert seen == made[::-1], query

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("state=lost", "state"),
            ("label=X=1", "label"),
            ("cursor=!!!", "cursor"),
            ("cursor=aGVsbG8", "cursor"),
            ("stat=queued", "stat"),
        ],
    )
    def test_a_bad_parameter_is_named(self, call: Client, query: str, field: str) -> None:
        refused = call("GET", f"/v1/jobs?{query}")
        assert (refused.status, refused.body["errors"][0]["field"]) == (400, field)

    def test_a_result_before_the_end_is_a_conflict(self, call: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        refused = call("GET", f"/v1/jobs/{job}/result")
        assert (refused.status, refused.body["state"]) == (409, "queued")

    def test_waiting_for_a_change(self, call: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        parked = call("GET", f"/v1/jobs/{job}?wait_s=5&seen_state=queued")
        assert parked.headers["hzc-wake"] == f"JOB#{job}"
        assert "hzc-wake" not in call("GET", f"/v1/jobs/{job}?wait_s=5&seen_state=placed").headers

    def test_a_stream_gives_history_then_waits_then_ends(
        self, container: Container, call: Client, agent: Client
    ) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        stream = call("GET", f"/v1/jobs/{job}/logs", accept="text/event-stream")
        assert stream.headers["hzc-wake"] == f"LOG#{job},JOB#{job}"
        log = {"seq": 1, "entries": [{"at_ms": 1, "stream": "stderr", "text": "a\n"}]}
        lease = run(container, agent, {"category": "exit", "exit_code": 2}, log=log)
        assert lease["follow"] is True
        stream = call("GET", f"/v1/jobs/{job}/logs", accept="text/event-stream")
        assert 'data: {"at":"1970-01-01T00:00:00.001Z","stream":"stderr","text":"a\\n"}' in stream.text
        cursor = stream.headers["hzc-stream"]
        assert f"id: {cursor}\n" in stream.text
        end = call("GET", f"/v1/jobs/{job}/logs", accept="text/event-stream", last_event_id=cursor)
        assert end.text == 'event: end\ndata: {"state":"failed"}\n\n'
        assert "hzc-stream" not in end.headers

    def test_an_unknown_route_is_a_problem(self, call: Client) -> None:
        assert call("GET", "/v1/nothing").body["code"] == "not_found"


class TestEnds:
    def test_rerun_makes_a_linked_job(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        again = call("POST", f"/v1/jobs/{job}/rerun")
        assert (again.status, again.body["origin"]) == (201, {"kind": "rerun", "job": job})

    def test_cancel_twice_is_once(self, call: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        assert call("POST", f"/v1/jobs/{job}/cancel").body["state"] == "cancelled"
        assert call("POST", f"/v1/jobs/{job}/cancel").body["state"] == "cancelled"

    def test_cancel_after_the_end_is_a_conflict(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        run(container, agent, {"category": "ok", "exit_code": 0})
        assert call("POST", f"/v1/jobs/{job}/cancel").status == 409

    def test_a_dead_job_is_listed_and_redriven(self, container: Container, call: Client, agent: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        assert call("POST", f"/v1/dead-letters/{job}/redrive").status == 409
        for _ in range(container.policy.max_lapses):
            run(container, agent, {"category": "platform", "detail": "the disk is full"})
            container.clock.sleep(60)
        dead = call("GET", "/v1/dead-letters").body["items"]
        assert [item["id"] for item in dead] == [job]
        assert "the disk is full" in dead[0]["reason"]
        again = call("POST", f"/v1/dead-letters/{job}/redrive")
        assert again.body["origin"] == {"kind": "redrive", "job": job}
