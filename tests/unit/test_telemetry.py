"""Metrics of the functions."""

from __future__ import annotations

import builtins
import errno

import pytest

from hanzo_compute.front.telemetry import Metrics


def test_metrics_that_cannot_be_written_do_not_fail_their_function(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are lines of a log on a disk that may be full: the work that they count is done."""
    metrics = Metrics("test")

    def full(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    metrics.count("Lost")
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "print", full)
        metrics.flush()
    metrics.count("Kept")
    metrics.flush()
    written = capsys.readouterr().out
    assert '"Kept"' in written
    assert '"Lost"' not in written
