"""Quotes, bills, receipts and the log of a real platform, by CLI and by HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from hanzo_compute.errors import Conflict, InvalidSpec, NotFound
from hanzo_compute.security.authorizer import Role
from tests.support.live import Platform, until

HELLO = {"source": {"code": "print('hello')", "language": "python"}}
FOREVER = {"source": {"code": "import time\nwhile True: time.sleep(0.05)", "language": "python"}}


def of(platform: Platform, key: str | None = None) -> Any:
    return wiring.proof_client(platform.url, key or platform.key)


def ended(platform: Platform, spec: dict[str, Any]) -> str:
    client = platform.client()
    return str(client.wait(client.submit(spec).job["id"], timeout_s=200)["id"])


def receipt(platform: Platform, job: str, attempt: int | None = None) -> dict[str, Any]:
    return dict(until(lambda: of(platform).receipt(job, attempt, wait_s=10), 120, "it is in the log"))


def test_from_quote_to_receipt_by_cli(platform: Platform, tmp_path: Path) -> None:
    program = tmp_path / "hello.py"
    program.write_text("print('hello')\n")
    quote = json.loads(platform.hzc("quote", str(program), "-o", "json").stdout)
    assert not quote["firm"]
    low = platform.hzc("run", str(program), "--max-price", str(int(quote["units"]) - 1))
    assert (low.returncode, b"can cost up to" in low.stderr) == (2, True), low
    run = platform.hzc("run", str(program), "--max-price", quote["units"])
    assert (run.returncode, run.stdout) == (0, b"hello\n"), run
    file = tmp_path / "r.json"
    shown = platform.hzc("receipt", "show", "last", "--save", str(file))
    assert (shown.returncode, b"everything in it holds" in shown.stdout) == (0, True), shown
    verified = json.loads(platform.hzc("receipt", "verify", str(file), "-o", "json").stdout)
    assert 0 < int(verified["units"]) <= int(quote["units"])
    assert platform.client().get(verified["job"])["cost"]["billed"] == verified["units"]
    export = tmp_path / "export"
    assert platform.hzc("log", "export", str(export)).returncode == 0
    checked = platform.hzc("log", "verify", str(export), "--receipt", str(file))
    assert checked.returncode == 0, checked
    assert platform.hzc("log", "checkpoint").returncode == 0


def test_each_end_has_a_receipt_that_says_so(platform: Platform) -> None:
    client = platform.client()
    failed = ended(platform, {"source": {"code": "raise SystemExit(3)", "language": "python"}})
    timed_out = ended(platform, FOREVER | {"resources": {"timeout_s": 1}})
    running = client.submit(FOREVER).job["id"]
    until(lambda: client.get(running)["state"] == "running", 120, "it runs")
    with pytest.raises(Conflict, match="has not ended"):
        of(platform).receipt(running)
    client.cancel(running)
    client.wait(running, timeout_s=200)
    for job, state in ((failed, "failed"), (timed_out, "timed_out"), (running, "cancelled")):
        found = receipt(platform, job)
        assert found["leaf"]["body"]["state"] == state
        assert int(found["leaf"]["body"]["bill"]["units"]) > 0
        assert found["statement"]["exit"]["category"] == found["leaf"]["body"]["category"]


def test_an_attempt_that_was_retried_has_its_own(platform: Platform) -> None:
    code = {"source": {"code": "raise SystemExit(1)", "language": "python"}}
    job = ended(platform, code | {"retry": {"max_attempts": 2, "backoff_s": 1}})
    first, last = receipt(platform, job, 1), receipt(platform, job)
    assert (first["leaf"]["body"]["state"], last["leaf"]["body"]["state"]) == ("retrying", "failed")
    total = sum(int(each["leaf"]["body"]["bill"]["units"]) for each in (first, last))
    assert platform.client().get(job)["cost"]["billed"] == str(total)
    with pytest.raises(NotFound, match="attempt 3"):
        of(platform).receipt(job, 3)


def test_a_receipt_is_its_tenants(platform: Platform) -> None:
    job = ended(platform, HELLO)
    other = of(platform, platform.tenant("receipts-other"))
    with pytest.raises(NotFound):
        other.receipt(job)
    assert other.checkpoint()["origin"] == of(platform).checkpoint()["origin"]
    runner = of(platform, platform.tenant("receipts-runner", Role.RUNNER))
    for call in (runner.checkpoint, lambda: runner.receipt(job), lambda: runner.quote(HELLO)):
        with pytest.raises(Exception, match=r"may|not"):
            call()


@pytest.mark.parametrize(
    "limit",
    [
        {"token": "credit", "units": "1"},
        {"token": "dollars", "units": "1000000000"},
        {"token": "credit", "units": "-1"},
        {"token": "credit", "units": 1.5},
        {"token": "credit"},
        7,
    ],
)
def test_a_limit_that_does_not_do(platform: Platform, limit: Any) -> None:
    with pytest.raises(InvalidSpec) as refused:
        platform.client().submit(HELLO | {"max_price": limit})
    assert refused.value.fields[0].field.startswith("max_price")
