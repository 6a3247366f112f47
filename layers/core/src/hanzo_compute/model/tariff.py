"""The tariff: what each unit of use costs, in integer base units of a token, by runtime, profile and tier.

A bill is the sum of quantities times rates, exact, rounded up once, and never over the most that the quote said.
Anybody recomputes it from the usage, the rates and that bound.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import canonical, money

UNITS: Final[dict[str, tuple[str, int]]] = {
    "attempt": ("attempts", 1),
    "wall_s": ("wall_ms", 1000),
    "cpu_s": ("cpu_ms", 1000),
    "memory_gib_s": ("memory_mib_ms", 1024 * 1000),
    "fuel_g": ("fuel", 10**9),
    "gpu_s": ("gpu_ms", 1000),
    "egress_gib": ("egress_bytes", 2**30),
}
"""Units that a tariff prices: the field of ``usage`` that counts it, and how many of those are one unit."""

COUNTED: Final = frozenset({"attempt", "fuel_g"})
"""Units of which a deterministic program uses the same on every machine."""

RATE_MAX: Final = canonical.EXACT_MAX
DECIMALS_MAX: Final = 36
_SCALE: Final = math.lcm(*(per for _, per in UNITS.values()))
_TEXT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SYMBOL: Final = re.compile(r"[!-~]{1,16}")


@dataclass(frozen=True)
class Rates:
    """One entry of a tariff: what an attempt of one kind of job costs."""

    version: str
    token: str
    symbol: str
    decimals: int
    runtime: str
    profile: str
    tier: int
    rates: Mapping[str, int]
    """Base units per unit of use; see ``UNITS``."""

    def as_json(self) -> dict[str, Any]:
        """As receipts carry it; its digest is that of this form."""
        return {
            "version": self.version,
            "token": self.token,
            "symbol": self.symbol,
            "decimals": self.decimals,
            "runtime": self.runtime,
            "profile": self.profile,
            "tier": self.tier,
            "rates": dict(self.rates),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Rates:
        """The entry of a stored or received form.

        Raises:
            ValueError: it is none.
        """
        kinds = {"version": str, "token": str, "symbol": str, "decimals": int, "runtime": str, "profile": str}
        if set(body) != {*kinds, "tier", "rates"} or any(type(body[n]) is not kind for n, kind in kinds.items()):
            raise ValueError("is no entry of a tariff")
        rates = body["rates"]
        if type(body["tier"]) is not int or not isinstance(rates, dict):
            raise ValueError("is no entry of a tariff")
        if any(name not in UNITS or type(rate) is not int or not 0 <= rate <= RATE_MAX for name, rate in rates.items()):
            raise ValueError("has a rate that is none")
        names = (body["version"], body["runtime"], body["profile"])
        if not all(map(_TEXT.fullmatch, names)) or not re.fullmatch(money.TOKEN, body["token"]):
            raise ValueError("has a name that is none")
        if (
            not _SYMBOL.fullmatch(body["symbol"])
            or not 0 <= body["decimals"] <= DECIMALS_MAX
            or not 0 <= body["tier"] <= 4
        ):
            raise ValueError("has a symbol, decimals or a tier that are none")
        return cls(**{**body, "rates": MappingProxyType(dict(rates))})

    @cached_property
    def digest(self) -> str:
        """SHA-256, hex, of the canonical form: jobs and statements name the entry by it."""
        return canonical.digest(self.as_json())

    @property
    def firm(self) -> bool:
        """Whether a deterministic run costs the same on every machine."""
        return self.rates.keys() <= COUNTED

    def cost(self, quantities: Mapping[str, int]) -> int:
        """Base units for quantities by field of ``usage``, rounded up once."""
        total = 0
        for unit, rate in self.rates.items():
            name, per = UNITS[unit]
            total += rate * quantities[name] * (_SCALE // per)
        return -(-total // _SCALE)

    def bill(self, usage: Mapping[str, Any], most: int) -> int:
        """Base units for what an attempt used; ``most`` where fuel is priced and the runtime lost its count."""
        if "fuel_g" in self.rates and usage.get("fuel") is None:
            return most
        return min(self.cost({**usage, "attempts": 1}), most)


@dataclass(frozen=True)
class Tariff:
    """All entries of one version, the first that matches a job is its price."""

    version: str
    token: str
    symbol: str
    decimals: int
    entries: tuple[Mapping[str, Any], ...]

    def find(self, runtime: str, profile: str, tier: int) -> Rates | None:
        """The rates for one kind of job, or None when such jobs are not priced."""
        asked = {"runtime": runtime, "profile": profile, "tier": tier}
        for entry in self.entries:
            if all(entry.get(name, value) == value for name, value in asked.items()):
                rates = MappingProxyType({unit: entry[unit] for unit in UNITS if entry.get(unit)})
                return Rates(self.version, self.token, self.symbol, self.decimals, runtime, profile, tier, rates)
        return None

    def as_json(self) -> dict[str, Any]:
        """As it is stored and shown."""
        head = {"version": self.version, "token": self.token, "symbol": self.symbol, "decimals": self.decimals}
        return {**head, "entries": [dict(entry) for entry in self.entries]}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Tariff:
        """The tariff of a stored form."""
        return cls(**{**body, "entries": tuple(MappingProxyType(entry) for entry in body["entries"])})


def parse(text: str, where: str) -> Tariff:
    """A tariff from TOML.

    Raises:
        InvalidRequest: it is none; the message names ``where`` and the field.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"{where} is no TOML: {error}", hint="docs/operating.md shows a tariff") from None

    def wrong(field: str, what: str) -> InvalidRequest:
        return InvalidRequest(f"{where}: {field} {what}", hint="docs/operating.md shows a tariff")

    unknown = sorted(found.keys() - {"version", "token", "symbol", "decimals", "rate"})
    if unknown:
        raise wrong(unknown[0], "is not known")
    version, token = found.get("version"), found.get("token")
    symbol, decimals = found.get("symbol", token), found.get("decimals", 0)
    if not isinstance(version, str) or not _TEXT.fullmatch(version):
        raise wrong("version", "must be a text of letters, digits, . _ -, at most 64")
    if not isinstance(token, str) or not re.fullmatch(money.TOKEN, token):
        raise wrong("token", "must be the id of a token, such as credit")
    if not isinstance(symbol, str) or not _SYMBOL.fullmatch(symbol):
        raise wrong("symbol", "must be 1 to 16 printable characters")
    if type(decimals) is not int or not 0 <= decimals <= DECIMALS_MAX:
        raise wrong("decimals", f"must be a whole number up to {DECIMALS_MAX}")
    entries = found.get("rate")
    if not isinstance(entries, list) or not entries:
        raise wrong("rate", "must be there at least once: [[rate]]")
    for number, entry in enumerate(entries, start=1):
        _check_entry(entry, f"rate {number}", wrong)
    return Tariff(version, token, symbol, decimals, tuple(MappingProxyType(entry) for entry in entries))


def _check_entry(entry: Any, name: str, wrong: Any) -> None:
    if not isinstance(entry, dict):
        raise wrong(name, "must be a table")
    for field, value in entry.items():
        if field in ("runtime", "profile"):
            if not isinstance(value, str) or not _TEXT.fullmatch(value):
                raise wrong(f"{name}: {field}", "must be a name")
        elif field == "tier":
            if type(value) is not int or not 0 <= value <= 4:
                raise wrong(f"{name}: tier", "must be 0 to 4")
        elif field not in UNITS:
            raise wrong(f"{name}: {field}", f"is not known; units are {', '.join(UNITS)}")
        elif type(value) is not int or not 0 <= value <= RATE_MAX:
            raise wrong(f"{name}: {field}", "must be a whole number of base units below 2^53")


DEFAULT: Final = parse(
    """
    version = "1"
    token = "credit"
    symbol = "cr"
    decimals = 9

    [[rate]]
    runtime = "wasm"
    profile = "deterministic"
    attempt = 200
    fuel_g = 25000

    [[rate]]
    runtime = "wasm"
    attempt = 200
    wall_s = 10000
    memory_gib_s = 16667
    """,
    "the built-in tariff",
)
"""What jobs cost where the operator has set no prices: credits that nobody has to pay."""

ANY: Final = "any"
FREE: Final = Rates("0", "credit", "cr", 9, ANY, ANY, 0, MappingProxyType({}))
"""For jobs that were accepted by a release without prices."""
