"""An invocation of a function, the statement about it, and the header of a batch of them, which is what is signed.

A statement has a part that it shares with others of its function (:class:`Kind`) and a row of its own: they are stored
apart, as an invocation is small and there are many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from hanzo_compute.model import canonical, statement
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.statement import Body, Terms
from hanzo_compute.model.tariff import Rates

FIELDS: Final = (
    "invocation",
    "function",
    "agent",
    "spec",
    "code",
    "input",
    "outputs",
    "exit",
    "usage",
    "price",
    "tier",
    "evidence",
    "runtime",
    "settlement",
    "started_ms",
)
"""Of the statement about an invocation."""
HEADER: Final = ("batch", "agent", "invocations", "root", "price", "settlement")
"""Of what is signed of a batch."""

ID: Final = re.compile(r"i-([0-7][0-9A-HJKMNP-TV-Z]{25})")
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGITS: Final = {digit: number for number, digit in enumerate(_ALPHABET)}
_USAGE: Final = ("wall_ms", "cpu_ms", "memory_peak_bytes", "memory_mib_ms", "fuel", "gpu_ms", "egress_bytes")

_OWN: Final = ("input", "invocation", "outputs", "price", "started_ms", "usage")
"""Fields that a statement has of its own, in canonical order."""

Row = list[Any]
"""What a statement has of its own: id, input, outputs, usage, units, time of start; short, without names."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a function that has been answered."""

    id: str
    """``i-`` and a ULID of the time of its start."""
    tenant: str
    function: str
    """The version that ran, such as ``name@3``."""
    spec: str
    """SHA-256, hex, of the version's spec: its ``digest``."""
    code: str
    """SHA-256, hex, of what ran."""
    input: str
    """SHA-256, hex, of the request's bytes."""
    terms: Terms
    """How it is billed: see :func:`hanzo_compute.services.pricing.terms_of_call`."""
    outcome: Outcome
    """Its outputs are named by their digest: ``blob`` is ``b1-`` and the SHA-256 of the response's bytes."""
    started_ms: int
    runtime: str = "wasm"


@dataclass(frozen=True, slots=True)
class Kind:
    """What the statements about alike invocations share. ``price`` lacks the units."""

    shared: Body
    rates: Rates
    fields: str
    """Canonical text of the digests of a statement's fields, with places for those of ``_OWN``."""
    price: str
    """Canonical text of the price, up to the units."""

    @classmethod
    def of(cls, invocation: Invocation, agent: str) -> Kind:
        """That of an invocation which ``agent`` has run."""
        terms, outcome = invocation.terms, invocation.outcome
        price = {
            "token": terms.rates.token,
            "most": str(terms.most),
            "tariff": terms.rates.version,
            "rates": terms.rates.digest,
        }
        body: Body = {
            "function": invocation.function,
            "agent": agent,
            "spec": invocation.spec,
            "code": invocation.code,
            "exit": statement.end(outcome),
            "tier": {"requested": terms.tier, "delivered": 0, "basis": "operator"},
            "evidence": None,
            "runtime": {"name": invocation.runtime, "version": outcome.runtime_version},
            "settlement": terms.settlement.as_json(),
        }
        digests = {**statement.field_digests(body), **dict.fromkeys(_OWN, "%s")}
        begin = canonical.canonical({**price, "units": ""}).decode()[:-2]
        return cls({**body, "price": price}, terms.rates, canonical.canonical(digests).decode(), begin)


def row(invocation: Invocation) -> Row:
    """What the statement about an invocation has of its own, with its bill."""
    outcome, terms = invocation.outcome, invocation.terms
    use = outcome.usage
    used = [
        *(use.wall_ms, use.cpu_ms, use.memory_peak_bytes, use.memory_mib_ms),
        *(use.fuel, use.gpu_ms, use.egress_bytes),
    ]
    outputs = [[each["name"], each["size"], each["sha256"]] for each in statement.outputs(outcome)]
    units = terms.rates.bill(dict(zip(_USAGE, used, strict=True)), terms.most)
    return [invocation.id, invocation.input, outputs, used, str(units), invocation.started_ms]


def body(shared: Body, own: Row) -> Body:
    """The whole statement."""
    id_, given, outputs, used, units, started_ms = own
    found = {
        **shared,
        "invocation": id_,
        "input": given,
        "outputs": [{"name": name, "size": size, "sha256": sha256} for name, size, sha256 in outputs],
        "usage": {name: count for name, count in zip(_USAGE, used, strict=True) if count is not None},
        "price": {**shared["price"], "units": units},
        "started_ms": started_ms,
    }
    return {name: found[name] for name in FIELDS}


def root(kind: Kind, own: Row) -> bytes:
    """``bodyRoot`` of the statement, a leaf of its batch's tree: ``statement.root`` of all its fields.

    Canonical texts are put together here, since their parts are digits, ids and names of a known form: it takes a
    tenth of the time.
    """
    id_, given, outputs, (wall, cpu, peak, memory, fuel, gpu, egress), units, started_ms = own
    left = ",".join([f'{{"name":"{name}","sha256":"{sha256}","size":{size}}}' for name, size, sha256 in outputs])
    fuel_text = "" if fuel is None else f'"fuel":{fuel},'
    texts = (
        f'"{given}"',
        f'"{id_}"',
        f"[{left}]",
        f'{kind.price}{units}"}}',
        f"{started_ms}",
        f'{{"cpu_ms":{cpu},"egress_bytes":{egress},{fuel_text}"gpu_ms":{gpu},"memory_mib_ms":{memory},'
        f'"memory_peak_bytes":{peak},"wall_ms":{wall}}}',
    )
    made = tuple([sha256(text.encode()).hexdigest() for text in texts])
    return sha256((kind.fields % made).encode()).digest()


def header(batch: str, agent: str, tree: bytes, rows: Sequence[Row], terms: Terms) -> Body:
    """What is signed of a batch: how many statements it has, the root over them, and what they cost together."""
    total = sum(int(each[4]) for each in rows)
    return {
        "batch": batch,
        "agent": agent,
        "invocations": len(rows),
        "root": tree.hex(),
        "price": {"token": terms.rates.token, "units": str(total)},
        "settlement": terms.settlement.as_json(),
    }


def signing_digest(given: Mapping[str, Any], body_root: bytes) -> bytes:
    """The 32 bytes that are signed of a batch: those of an ``Execution`` whose job is the batch.

    Raises:
        OverflowError: the price is over what 256 bits hold.
    """
    execution = {"job": given["batch"], "attempt": 1, "price": given["price"], "settlement": given["settlement"]}
    return statement.signing_digest(execution, body_root)


def began_ms(ulid: str) -> int:
    """The time in an id's 26 characters."""
    found = 0
    for digit in ulid[:10]:
        found = found << 5 | _DIGITS[digit]
    return found


def ulid_before(ms: int) -> str:
    """What sorts after all 26 characters of ids that began before ``ms``, and before all others."""
    return "".join(_ALPHABET[ms >> shift & 31] for shift in range(45, -1, -5))
