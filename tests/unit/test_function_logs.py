"""What functions write to standard error: gathered, written in chunks, kept to a bound."""

from __future__ import annotations

import pytest
from pydantic_core import to_json

from hanzo_compute.model import keys
from hanzo_compute.ports import RECORD_MAX
from hanzo_compute.ports.sandboxes import GuestResult
from hanzo_compute.services import function_logs
from hanzo_compute.services.function_logs import CALL_MAX, CHUNKS_KEPT, GATHERED_MAX
from tests.support.stepped import Platform


def note(platform: Platform, errors: bytes, call: str = "i-1", tenant: str = "acme", category: str = "ok") -> None:
    result = GuestResult(category, errors=errors, detail="" if category == "ok" else "why")
    function_logs.note(platform.ctx, tenant, "f@3", call, platform.clock.now_ms(), result)


def texts(platform: Platform, tenant: str = "acme", limit: int = 1000) -> list[str]:
    return [each["text"] for each in function_logs.read(platform.ctx, tenant, "f", limit)]


def test_lines_are_there_once_they_are_flushed() -> None:
    platform = Platform()
    note(platform, b"one\n")
    note(platform, b"two", "i-2", category="trap")
    note(platform, b"", "i-3")
    assert texts(platform) == []
    assert function_logs.flush(platform.ctx) == 2
    assert function_logs.flush(platform.ctx) == 0
    first, second = function_logs.read(platform.ctx, "acme", "f", 10)
    assert {name: first[name] for name in ("function", "invocation", "text")} == {
        "function": "f@3",
        "invocation": "i-1",
        "text": "one\n",
    }
    assert (second["category"], second["detail"], "category" in first) == ("trap", "why", False)
    assert function_logs.read(platform.ctx, "acme", "f", 1) == [second]


def test_tenants_do_not_see_each_others() -> None:
    platform = Platform()
    note(platform, b"mine")
    note(platform, b"yours", tenant="other")
    function_logs.flush(platform.ctx)
    assert (texts(platform), texts(platform, "other")) == (["mine"], ["yours"])


@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\\", b'"', "é".encode(), "🙂".encode(), b"\x1b[0m"])
def test_whatever_a_guest_writes_fits_into_records(filler: bytes) -> None:
    """One tenant's noise must not cost another its lines."""
    platform = Platform()
    for number in range(40):
        note(platform, filler * (2 * CALL_MAX // len(filler)), f"i-{number}")
    note(platform, b"quiet", tenant="other")
    assert function_logs.flush(platform.ctx) == 41
    assert texts(platform, "other") == ["quiet"]
    found = function_logs.read(platform.ctx, "acme", "f", 100)
    assert [each["invocation"] for each in found] == [f"i-{number}" for number in range(40)]
    assert all(each["truncated"] for each in found)
    for record in platform.store.query(keys.function_log("acme", "f", "").pk):
        assert len(to_json(record.body)) < RECORD_MAX


def test_a_process_gathers_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    platform = Platform()
    for _ in range(2 * GATHERED_MAX // CALL_MAX):
        note(platform, b"x" * CALL_MAX)
    gathered = platform.ctx.function_logs
    dropped = gathered.dropped
    assert dropped > 0
    assert gathered.size < GATHERED_MAX + 2 * CALL_MAX
    kept = function_logs.flush(platform.ctx)
    assert kept + dropped == 2 * GATHERED_MAX // CALL_MAX
    assert f"{dropped} calls" in caplog.text
    assert gathered.dropped == 0
    platform.clock.advance(1000)
    note(platform, b"after")
    function_logs.flush(platform.ctx)
    assert texts(platform)[-1] == "after"


def test_the_newest_chunks_are_kept() -> None:
    platform = Platform()
    for number in range(CHUNKS_KEPT + 20):
        note(platform, str(number).encode())
        function_logs.flush(platform.ctx)
        platform.clock.advance(1000)
    assert texts(platform) == [str(number) for number in range(20, CHUNKS_KEPT + 20)]
    assert texts(platform, limit=2) == [str(CHUNKS_KEPT + 18), str(CHUNKS_KEPT + 19)]
