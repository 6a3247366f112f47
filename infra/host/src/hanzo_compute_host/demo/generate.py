"""The demo's orders: made from a seed, so they are the same on every machine."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Final

ROWS: Final = 8000
SEED: Final = 20260101

_REGIONS: Final = {"Europe": 34, "North America": 29, "Asia Pacific": 22, "Latin America": 10, "Africa": 5}
_PRODUCTS: Final = {
    "espresso machine": 42900,
    "grinder": 18900,
    "kettle": 7900,
    "scale": 3900,
    "filter papers": 690,
    "house blend 1 kg": 2290,
    "single origin 250 g": 1190,
    "descaler": 950,
    "milk jug": 1850,
    "cup set": 3200,
}
_FIRST_DAY: Final = date(2025, 1, 1)


def orders_csv(rows: int = ROWS, seed: int = SEED) -> bytes:
    """Orders of one year as CSV; about one row in 400 is broken, as in real exports."""
    chance = random.Random(seed)
    lines = ["order,date,region,product,quantity,unit_cents"]
    names, prices = list(_PRODUCTS), list(_PRODUCTS.values())
    for number in range(1, rows + 1):
        day = _FIRST_DAY + timedelta(days=chance.randrange(365))
        region = chance.choices(list(_REGIONS), list(_REGIONS.values()))[0]
        which = chance.randrange(len(names))
        quantity = 1 + min(int(chance.expovariate(0.7)), 40)
        cents = prices[which] * chance.randint(92, 108) // 100
        lines.append(f"W{number:06d},{_broken(chance, day)},{region},{names[which]},{quantity},{cents}")
    return ("\n".join(lines) + "\n").encode()


def _broken(chance: random.Random, day: date) -> str:
    """The day, or now and then one that does not exist."""
    return f"{day:%Y}-02-30" if chance.randrange(400) == 0 else day.isoformat()
