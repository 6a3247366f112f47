"""Reports on a CSV of orders from standard input: revenue by region and month, products, baskets, outliers.

Reads columns order, date (YYYY-MM-DD), region, product, quantity, unit_cents. Money is in whole cents
throughout, so that the same orders make the same report, to the last digit, on every Python.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

PROGRESS_EVERY = 1000


def parse(row: dict[str, str]) -> tuple[date, str, str, int]:
    """Day, region, product and cents of a row; ValueError or KeyError if it is not one."""
    quantity, unit = int(row["quantity"]), int(row["unit_cents"])
    if quantity <= 0 or unit <= 0 or not row["region"] or not row["product"]:
        raise ValueError("empty or not positive")
    return date.fromisoformat(row["date"]), row["region"], row["product"], quantity * unit


def quantile(ordered: list[int], numerator: int, denominator: int) -> int:
    """The nearest-rank quantile of values in order."""
    return ordered[max(0, -(-len(ordered) * numerator // denominator) - 1)]


def report(lines: Iterable[str], progress: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """The report on the orders in CSV lines; rows that cannot be right are counted by reason and left out."""
    regions, months, products, rejected = (Counter[str]() for _ in range(4))
    baskets: list[tuple[int, str]] = []
    for number, row in enumerate(csv.DictReader(lines), 1):
        try:
            day, region, product, cents = parse(row)
        except (ValueError, KeyError, TypeError) as error:
            rejected[type(error).__name__] += 1
            progress(f"row {number}: rejected: {error}")
            continue
        regions[region] += cents
        months[f"{day:%Y-%m}"] += cents
        products[product] += cents
        baskets.append((cents, row["order"]))
        if number % PROGRESS_EVERY == 0:
            progress(f"row {number}: {sum(regions.values()) / 100:,.2f} so far")
    values = sorted(cents for cents, _ in baskets)
    low, middle, high = (quantile(values, part, 4) if values else 0 for part in (1, 2, 3))
    limit = high + (high - low) * 3 // 2
    outliers = sorted((basket for basket in baskets if basket[0] > limit), reverse=True)
    largest = [order for _, order in outliers[:3]]
    found: dict[str, Any] = {
        "orders": len(baskets),
        "rejected": dict(sorted(rejected.items())),
        "revenue_cents": sum(values),
        "by_region": dict(regions.most_common()),
        "by_month": dict(sorted(months.items())),
        "top_products": dict(products.most_common(5)),
        "median_basket_cents": middle,
        "outliers": {"above_cents": limit, "count": len(outliers), "largest": largest},
    }
    found["checksum"] = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return found


if __name__ == "__main__":
    made = report(sys.stdin, lambda text: print(text, file=sys.stderr, flush=True))
    json.dump(made, sys.stdout, indent=2)
    print()
