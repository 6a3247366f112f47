"""A function that counts its runs and lists them in its entries: each run that succeeded is there once, no other is."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryDatabase
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.model import keys
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Body, GuestService, Put
from hanzo_compute.services import functions
from hanzo_compute.services.context import Context
from tests.simulation.violation import require

FUNCTION: Final = "counter"
COUNT: Final = b"n"
NAMES: Final = b"names"
_VERSION_SIZE: Final = 8


def deploy(ctx: Context, tenant: str) -> None:
    """Make the function, unless it is there."""
    source = {"code": "pass", "language": "python"}
    spec = FunctionSpec.model_validate({"source": source, "capabilities": {"kv": True}})
    functions.deploy(ctx, tenant, FUNCTION, spec)


def run(service: GuestService, name: str) -> bool:
    """What the guest does in its run ``name``; False if the platform did not let it, and so it fails."""
    for key, changed in ((COUNT, lambda old: str(int(old or b"0") + 1)), (NAMES, lambda old: f"{old.decode()}{name} ")):
        status, found = service.ask("kv_get", [key])
        if status < -1:
            return False
        version = int.from_bytes(found[:_VERSION_SIZE], "little") if status >= 0 else 0
        if service.ask("kv_put", [key, changed(found[_VERSION_SIZE:]).encode(), version])[0] != 0:
            return False
    return True


class EntryWatch:
    """What is in the entries, transaction by transaction."""

    def applied(self, puts: Mapping[Key, Put], before: Mapping[Key, StoredRecord | None]) -> None:
        """A transaction has just been applied."""
        written = {key: put.body for key, put in puts.items() if keys.is_kv(key)}
        if not written:
            return
        ended = [(key, put.body) for key, put in puts.items() if "ATTEMPT#" in key.sk and "outcome" in put.body]
        require(len(ended) == 1, f"{list(written)} were written with {len(ended)} outcomes")
        ((at, attempt),) = ended
        outcome = attempt["outcome"]
        require(outcome["category"] == "ok", f"an attempt that ended with {outcome['category']} has left entries")
        job = puts[Key(at.pk, "META")].body
        name = outcome["runtime_version"]
        for key, body in written.items():
            require(key.pk == keys.kv_partition(job["tenant"], job["entries_of"]), f"{at.pk} has written to {key.pk}")
            stored = before[key]
            old, new = b"" if stored is None else _value(decode_body(stored.body)), _value(body)
            require(name not in old.decode().split(), f"{name} has left its entries twice")
            wanted = f"{int(old or b'0') + 1}" if bytes.fromhex(key.sk) == COUNT else f"{old.decode()}{name} "
            require(new.decode() == wanted, f"an update was lost: {key.sk} of {key.pk} went from {old!r} to {new!r}")

    def check(self, database: MemoryDatabase, jobs: Mapping[str, Mapping[str, Body]]) -> None:
        """At rest: the runs that succeeded are there, each once."""
        for tenant in {records["META"]["tenant"] for records in jobs.values()}:
            succeeded = sorted(
                body["outcome"]["runtime_version"]
                for records in jobs.values()
                for sk, body in records.items()
                if records["META"]["tenant"] == tenant and records["META"].get("entries_of") == FUNCTION
                if sk.startswith("ATTEMPT#") and body.get("outcome", {}).get("category") == "ok"
            )
            names = sorted(_stored(database, tenant, NAMES).decode().split())
            require(names == succeeded, f"of {tenant} there succeeded {succeeded}, and its entries have {names}")
            count = int(_stored(database, tenant, COUNT) or b"0")
            require(
                count == len(succeeded), f"of {tenant} there succeeded {len(succeeded)} runs, and {count} are counted"
            )


def _stored(database: MemoryDatabase, tenant: str, key: bytes) -> bytes:
    record = database.record(keys.kv(tenant, FUNCTION, key))
    return b"" if record is None else _value(decode_body(record.body))


def _value(body: Body) -> bytes:
    return base64.b64decode(body["value"])
