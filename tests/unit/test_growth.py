"""What a process still holds of bodies and rows that have come and gone, counted in a process of its own."""

from __future__ import annotations

import subprocess
import sys

COUNT = """
import gc, sys
{prepare}
def held():
    gc.collect()
    return sys.getallocatedblocks()
for number in range(100):
    once(number)
before = held()
for number in range(100, 2100):
    once(number)
print(held() - before)
"""

BODY = """
from hanzo_compute.adapters.checks import encode_body
def once(number):
    encode_body({"id": f"j-{number:026}", "key": f"of-{number}", "state": "queued"})
"""

ROWS = """
import sqlite3
from hanzo_compute.adapters.local import records, schema
db = sqlite3.connect(":memory:")
for statement in schema.MIGRATIONS[0]:
    db.execute(statement)
def once(number):
    key = (f"JOB#{number}", "META")
    records.transact(db, [("put", *key, None, "{}", {"tenant": [f"TENANT#{number}", f"at-{number}"]})])
    records.transact(db, [("put", *key, None, "{}", {})])
    records.transact(db, [("delete", *key, None)])
"""

CHUNK = """
from hanzo_compute.adapters.logs import RecordLogs
from hanzo_compute.adapters.memory import MemoryBlobs
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Record
class Blobs(MemoryBlobs):
    def get(self, tenant, blob):
        return blob.encode()
logs = RecordLogs(None, Blobs(None))
def once(number):
    logs._entries("a", Record(Key("a", "b"), 1, {"blob": f'[[1, "stdout", "line {number}"]]'}))
"""

HEAD = """
from hanzo_compute.services.host import _head
def once(number):
    _head(f'{{"url": "https://example.org/{number}", "headers": {{"Authorization": "token {number}"}}}}'.encode())
"""


def held(prepare: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(prepare=prepare)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_body_that_was_encoded_leaves_nothing_behind() -> None:
    assert held(BODY) < 200


def test_rows_that_are_gone_leave_nothing_behind_in_the_writer() -> None:
    assert held(ROWS) < 200


def test_a_log_that_was_read_leaves_nothing_behind() -> None:
    assert held(CHUNK) < 200


def test_a_request_of_a_function_leaves_nothing_behind() -> None:
    assert held(HEAD) < 200
