"""What the agent keeps of its log shipments over a restart."""

from __future__ import annotations

from pathlib import Path

from hanzo_compute.ports import Handle
from hanzo_compute_agent.journal import FileJournal, Shipment


def test_the_last_shipment_is_kept_until_the_attempt_is_over(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    handle = Handle("j-1", 2)
    assert journal.last(handle) == Shipment()
    journal.intend(handle, Shipment(1, 0, 5))
    journal.intend(handle, Shipment(2, 5, 9))
    assert FileJournal(tmp_path).last(handle) == Shipment(2, 5, 9)
    journal.forget(handle)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_agent_left_is_forgotten(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    kept, reaped = Handle("j-1", 1), Handle("j-2", 1)
    for handle in (kept, reaped):
        journal.intend(handle, Shipment(1, 0, 5))
    (tmp_path / "j-3.1.new").write_text("{")  # killed while it wrote
    journal.keep_only([kept])
    assert [path.name for path in tmp_path.iterdir()] == ["j-1.1.json"]
    assert journal.last(kept) == Shipment(1, 0, 5)
