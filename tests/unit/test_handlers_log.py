"""Quotes, receipts and the log, as requests meet them."""

from __future__ import annotations

import json

import pytest

import completion.app
from hanzo_compute.model import tariff
from hanzo_compute.services import batches, log
from hanzo_compute.services.invocations import Batcher
from hanzo_compute.wiring import Container
from tests.support.handlers import CONTEXT, SPEC, Client
from tests.support.invocations import invocation


class TestLog:
    """Quotes, receipts and the log, as requests meet them."""

    def ended(self, container: Container, call: Client) -> str:
        job = str(call("POST", "/v1/jobs", SPEC).body["id"])
        call("POST", f"/v1/jobs/{job}/cancel")
        container.clock.advance(1000)  # type: ignore[attr-defined]
        log.sequence(container)
        return job

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("from=1", "to"),
            ("to=1", "from"),
            ("", "from"),
            ("from=0&to=1", "from"),
            ("from=2&to=1", "from"),
            ("from=1&to=9", "to"),
            ("from=x&to=1", "from"),
        ],
    )
    def test_a_proof_that_cannot_be(self, container: Container, call: Client, query: str, field: str) -> None:
        self.ended(container, call)
        refused = call("GET", f"/v1/log/consistency?{query}" if query else "/v1/log/consistency")
        assert (refused.status, refused.body["errors"][0]["field"]) == (400, field)

    def test_a_log_without_leaves(self, call: Client) -> None:
        assert call("GET", "/v1/log/checkpoint").status == 404
        assert call("GET", "/v1/log/proof?index=0").status == 404
        assert call("GET", "/v1/log/entries").body == {"start": 0, "count": 0, "leaves": ""}

    def test_proofs_by_http(self, container: Container, call: Client) -> None:
        for _ in range(3):
            self.ended(container, call)
        newest = call("GET", "/v1/log/checkpoint").body
        assert (newest["size"], newest["at"][-1]) == (3, "Z")
        assert call("GET", "/v1/log/proof?index=2").body == call("GET", "/v1/log/proof?index=2&size=3").body
        assert call("GET", "/v1/log/entries?start=1&limit=1").body["count"] == 1
        assert call("GET", "/v1/log/entries?limit=16385").status == 400

    def test_a_receipt_waits_for_its_checkpoint(self, container: Container, call: Client) -> None:
        running = call("POST", "/v1/jobs", SPEC).body["id"]
        refused = call("GET", f"/v1/jobs/{running}/receipt")
        assert (refused.status, refused.body["code"]) == (409, "conflict")
        call("POST", f"/v1/jobs/{running}/cancel")
        pending = call("GET", f"/v1/jobs/{running}/receipt")
        assert (pending.status, pending.body["status"], pending.headers["retry-after"]) == (202, "pending", "1")
        parked = call("GET", f"/v1/jobs/{running}/receipt?wait_s=5")
        assert parked.headers["hzc-wake"] == "CHECKPOINT"
        log.sequence(container)
        assert call("GET", f"/v1/jobs/{running}/receipt").status == 200

    def test_the_end_of_a_job_gets_its_place_with_the_completions(self, container: Container, call: Client) -> None:
        job = call("POST", "/v1/jobs", SPEC).body["id"]
        call("POST", f"/v1/jobs/{job}/cancel")
        message = {"messageId": "1", "body": json.dumps({"job": job, "attempt": 0}), "eventSource": "aws:sqs"}
        event = {"Records": [{**message, "attributes": {}}]}
        assert completion.app.handler(event, CONTEXT) == {"batchItemFailures": []}
        assert call("GET", f"/v1/jobs/{job}/receipt").status == 200

    def test_a_receipt_of_an_invocation(self, container: Container, call: Client, other: Client) -> None:
        batcher = Batcher("local")
        batcher.flush(container)
        batcher.add(one := invocation(container, tenant="t1"))
        path = f"/v1/invocations/{one.id}/receipt"
        missing = call("GET", path)
        assert (missing.status, missing.body["code"], missing.body["invocation"]) == (404, "not_found", one.id)
        assert "a second after the answer" in missing.body["hint"]
        parked = call("GET", f"{path}?wait_s=5")
        assert (parked.status, parked.headers["hzc-wake"], parked.headers["hzc-wait"]) == (404, "CHECKPOINT", "5.0")
        part = next(batches.cut([one]))
        batches.write(container, batches.seal(container, batcher.agent, part))
        pending = call("GET", path)
        assert (pending.status, pending.body) == (202, {"status": "pending", "invocation": one.id})
        assert "hzc-wake" not in pending.headers
        assert call("GET", f"{path}?wait_s=5").headers["hzc-wake"] == "CHECKPOINT"
        log.sequence(container)
        found = call("GET", path)
        assert (found.status, found.body["statement"]["invocation"]) == (200, one.id)
        assert other("GET", path).status == 404
        assert call("GET", path, key=None).status == 401

    @pytest.mark.parametrize(
        "odd", ["i-1", "j-01HF7YAT00000000000000000A", "i-01HF7YAT00000000000000000a", "%00", "last"]
    )
    def test_no_invocation_is_waited_for_in_vain(self, call: Client, odd: str) -> None:
        answer = call("GET", f"/v1/invocations/{odd}/receipt?wait_s=5")
        assert (answer.status, "hzc-wake" in answer.headers) == (404, False)

    def test_batches_alone_send_no_message(self, container: Container) -> None:
        """Who wrote them looks again: a message would name a job that is not there."""
        batcher = Batcher("local")
        for _ in range(2):
            batcher.add(invocation(container))
            batcher.flush(container)
        assert log.checkpoint(container)["size"] == 1
        container.clock.advance(5000)  # type: ignore[attr-defined]
        assert container.queue.receive("completion") == []

    def test_a_quote_and_what_it_is_made_of(self, call: Client) -> None:
        quote = call("POST", "/v1/quotes", SPEC | {"retry": {"max_attempts": 3}}).body
        made = -(
            -sum(item["quantity"] * item["rate"] * 1_024_000 // item["per"] for item in quote["items"]) // 1_024_000
        )
        assert quote["attempt_units"] == str(made)
        assert quote["units"] == str(3 * made)
        assert (quote["firm"], quote["basis"], quote["token"]) == (False, "timeout", "credit")
        limit = {"token": "credit", "units": quote["units"]}
        spec = SPEC | {"retry": {"max_attempts": 3}}
        assert call("POST", "/v1/jobs", spec | {"max_price": limit}).status == 201
        low = spec | {"max_price": limit | {"units": str(3 * made - 1)}}
        for path in ("/v1/jobs", "/v1/validate", "/v1/quotes"):
            refused = call("POST", path, low)
            assert (refused.status, refused.body["errors"][0]["field"]) == (400, "max_price.units"), path

    def test_a_limit_holds_for_who_runs_the_job_again(self, container: Container, call: Client) -> None:
        quote = call("POST", "/v1/quotes", SPEC).body
        limit = {"token": "credit", "units": quote["units"]}
        job = call("POST", "/v1/jobs", SPEC | {"max_price": limit}).body["id"]
        text = 'version = "2"\ntoken = "credit"\n[[rate]]\nruntime = "wasm"\nwall_s = 1000000\n'
        object.__setattr__(container, "tariff", tariff.parse(text, "dearer"))
        refused = call("POST", f"/v1/jobs/{job}/rerun")
        assert (refused.status, refused.body["errors"][0]["field"]) == (400, "max_price.units")
        assert call("GET", f"/v1/jobs/{job}").body["cost"]["attempt_most"] == quote["attempt_units"]

    def test_a_tariff_that_was_changed_without_a_new_version(self, container: Container, call: Client) -> None:
        assert call("POST", "/v1/jobs", SPEC).status == 201
        container.tariffs.clear()
        text = 'version = "1"\ntoken = "credit"\n[[rate]]\nruntime = "wasm"\nwall_s = 1\n'
        object.__setattr__(container, "tariff", tariff.parse(text, "changed"))
        refused = call("POST", "/v1/jobs", SPEC)
        assert (refused.status, "had other prices before" in refused.body["detail"]) == (409, True)

    def test_a_job_that_the_tariff_does_not_price(self, container: Container, call: Client) -> None:
        text = 'version = "3"\ntoken = "credit"\n[[rate]]\nruntime = "docker"\nwall_s = 1\n'
        object.__setattr__(container, "tariff", tariff.parse(text, "other"))
        for path in ("/v1/jobs", "/v1/quotes", "/v1/validate"):
            refused = call("POST", path, SPEC)
            assert (refused.status, refused.body["code"]) == (400, "not_supported"), path

    def test_jobs_that_are_priced_by_fuel_need_a_limit(self, container: Container, call: Client) -> None:
        text = 'version = "4"\ntoken = "credit"\n[[rate]]\nruntime = "wasm"\nattempt = 1\nfuel_g = 1000000000\n'
        object.__setattr__(container, "tariff", tariff.parse(text, "fuel"))
        refused = call("POST", "/v1/quotes", SPEC)
        assert (refused.status, refused.body["errors"][0]["field"]) == (400, "resources.fuel")
        quote = call("POST", "/v1/quotes", SPEC | {"resources": {"fuel": 5000}}).body
        assert (quote["firm"], quote["basis"], quote["units"]) == (True, "fuel", "5001")
