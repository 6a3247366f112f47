"""Cron expressions: five fields, read against the clocks of a time zone.

What a zone does to its clocks decides about hours that are named and hours that are not:

- *Hours are named* (``30 2 * * *``): each time of a day comes once. One that the clocks skip comes when they have
  skipped it, several of those together; one that they show twice comes at the first.
- *Hours begin with a star* (``*/5 * * * *``): the clocks are followed. What they show twice comes twice, what they skip
  does not come, and every five minutes stays every five minutes.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

_FIRST_HALF: Final = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6}
_MONTHS: Final = _FIRST_HALF | {"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}
_DAYS: Final = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_FIELDS: Final[tuple[tuple[str, int, int, dict[str, int]], ...]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_ZONE: Final = r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}"
_NO_ZONES: Final = frozenset({"posix", "right", "localtime", "posixrules", "Factory"})
"""What lies among the zones of a machine and is none of IANA's."""

_SPAN: Final = timedelta(days=50 * 366)
"""29 February is a Monday every 28 years, or after 40 at the turn of a century."""
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression; times are milliseconds since the epoch."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either: bool
    """A day matches by its number or by its weekday: both are given. Else it must match by both."""
    follows: bool
    """Hours begin with a star: see above."""

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read an expression.

        Raises:
            ValueError: it is none, or no day ever matches; the message says why.
        """
        parts = text.split()
        if len(parts) != 5:
            raise ValueError(f"must have five fields (minute hour day month weekday), and has {len(parts)}")
        minutes, hours, days, months, weekdays = (
            _field(*field, part) for field, part in zip(_FIELDS, parts, strict=True)
        )
        found = cls(
            minutes=tuple(sorted(minutes)),
            hours=tuple(sorted(hours)),
            days=frozenset(days),
            months=frozenset(months),
            weekdays=frozenset(day % 7 for day in weekdays),
            either=not parts[2].startswith("*") and not parts[4].startswith("*"),
            follows=parts[1].startswith("*"),
        )
        if next(found._dates(date(2000, 1, 1), 1), None) is None:
            raise ValueError("no day ever matches it")
        return found

    def after(self, ms: int, zone: ZoneInfo) -> int | None:
        """The first time after ``ms``; None: there is none before the calendar ends."""
        for day in self._dates(_local(ms, zone) - _DAY, 1):
            times = _times(self, zone, day)
            place = bisect_right(times, ms)
            if place < len(times):
                return times[place]
        return None

    def before(self, ms: int, zone: ZoneInfo, since_ms: int, count: int) -> list[int]:
        """The last ``count`` times from ``since_ms`` to ``ms``, oldest first."""
        found: list[int] = []
        first = _local(since_ms, zone) - _DAY
        for day in self._dates(_local(ms, zone) + _DAY, -1):
            if day < first or len(found) == count:
                break
            times = _times(self, zone, day)
            latest = min([ms, *(each - 1 for each in found[-1:])])
            for each in reversed(times[: bisect_right(times, latest)]):
                if len(found) < count and each >= since_ms:
                    found.append(each)
        return found[::-1]

    def _dates(self, day: date, step: int) -> Iterator[date]:
        """Days that match, from ``day`` on or back."""
        last = date.max - _DAY if date.max - _SPAN < day else day + _SPAN
        first = date.min + _DAY if day < date.min + _SPAN else day - _SPAN
        while first <= day <= last:
            if day.month not in self.months:  # to the first, or the last, of the next month
                day = day.replace(day=1)
                day = (day + 32 * _DAY).replace(day=1) if step > 0 else day - _DAY
                continue
            weekday = day.isoweekday() % 7 in self.weekdays
            if (day.day in self.days or weekday) if self.either else (day.day in self.days and weekday):
                yield day
            day += step * _DAY


def _field(name: str, low: int, high: int, words: dict[str, int], text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(
            r"(?:(\*)|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?", part.lower()
        )
        if match is None:
            raise ValueError(f"{name}: {part[:40]!r} is none of * 5 1-5 */5 1-30/5, nor a list of these")
        star, first, last, step = match.groups()
        begin = low if star else _value(name, low, high, words, first)
        end = high if star or (step and not last) else _value(name, low, high, words, last or first)
        if end < begin:
            raise ValueError(f"{name}: {part!r} ends before it begins")
        if step is not None and int(step) == 0:
            raise ValueError(f"{name}: {part!r} has a step of 0")
        found.update(range(begin, end + 1, int(step or 1)))
    return found


def _value(name: str, low: int, high: int, words: dict[str, int], text: str) -> int:
    value = words.get(text, int(text) if text.isdecimal() else -1)
    if not low <= value <= high:
        known = f", or {' '.join(words)}" if words else ""
        raise ValueError(f"{name}: {text!r} is not from {low} to {high}{known}")
    return value


def zone_of(name: str) -> ZoneInfo:
    """The zone of an IANA name.

    Raises:
        ValueError: there is none; the message says what may have been meant.
    """
    if re.fullmatch(_ZONE, name) and name.partition("/")[0] not in _NO_ZONES:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    close = difflib.get_close_matches(name[:64].title(), available_timezones() - _NO_ZONES, n=1)
    meant = f": did you mean {close[0]}?" if close else ", like Europe/Zurich or UTC"
    raise ValueError(f"is no name of an IANA time zone{meant}")


def _local(ms: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(ms // 1000, zone).date()


@lru_cache(32)
def _times(cron: Cron, zone: ZoneInfo, day: date) -> tuple[int, ...]:
    """All times of a day that matches; those of a day that does not exist come at the next one's beginning."""
    naive = datetime.combine(day, time())
    begin, end = (_ms(naive, zone, 0), _ms(naive + timedelta(hours=23, minutes=59), zone, 1))
    minutes = [hour * 60 + minute for hour in cron.hours for minute in cron.minutes]
    if end - begin == (24 * 60 - 1) * 60_000:
        return tuple(begin + minute * 60_000 for minute in minutes)
    found: set[int] = set()
    for minute in minutes:
        shown = naive + timedelta(minutes=minute)
        first, second = _ms(shown, zone, 0), _ms(shown, zone, 1)
        if first > second:  # the clocks skip it
            found.update(() if cron.follows else (_skipped(zone, second, first),))
        else:
            found.update((first, second) if cron.follows else (first,))
    return tuple(sorted(found))


def _ms(shown: datetime, zone: ZoneInfo, fold: int) -> int:
    return int(shown.replace(tzinfo=zone, fold=fold).timestamp()) * 1000


def _skipped(zone: ZoneInfo, before_ms: int, after_ms: int) -> int:
    """When the clocks were set forward, which is between these two times: the first that shows the new offset."""
    new = datetime.fromtimestamp(after_ms // 1000, UTC).astimezone(zone).utcoffset()
    while after_ms - before_ms > 1000:
        middle = (before_ms + after_ms) // 2000 * 1000
        if datetime.fromtimestamp(middle // 1000, UTC).astimezone(zone).utcoffset() == new:
            after_ms = middle
        else:
            before_ms = middle
    return after_ms
