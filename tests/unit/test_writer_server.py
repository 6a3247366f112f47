"""The writer's loop, stopped at a chosen moment."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from hanzo_compute.adapters.local import frames, schema
from hanzo_compute.adapters.local.engine import Engine
from hanzo_compute.adapters.local.server import Server


class StoppingEngine(Engine):
    """Stops its server while it applies a request, as a signal may."""

    server: Server

    def apply(self, request: frames.Frame) -> frames.Frame:
        self.server.stop()
        return super().apply(request)


def test_what_was_answered_before_the_stop_becomes_durable(tmp_path: Path) -> None:
    engine = StoppingEngine(schema.open_for_writing(tmp_path / "db"), tmp_path / "db")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        engine.server = Server(listener, engine)
        with frames.connect(tmp_path / "s", 60) as client:
            put: list[object] = ["put", "p", "s", None, "{}", {}]
            client.sendall(frames.encode({"id": 7, "op": "transact", "args": [[put], []]}))
            engine.server.run()
            decoder = frames.Decoder()
            seen: list[frames.Frame] = []
            while data := client.recv(1000):
                seen += decoder.feed(data)
    assert seen == [{"id": 7, "ok": None}, {"durable": 7}, {"bye": 7}]
    engine.close()
    db = sqlite3.connect(tmp_path / "db")
    assert db.execute("SELECT count(*) FROM records").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize("expect", [None, 3])
def test_a_batch_without_changes_wakes_nobody(tmp_path: Path, expect: int | None) -> None:
    engine = Engine(schema.open_for_writing(tmp_path / "db"), tmp_path / "db")
    operation = ["delete", "p", "s", expect] if expect else ["check", "p", "s", 0]
    engine.apply({"op": "transact", "args": [[operation], []]})
    assert engine.commit() == []
    engine.close()
