"""Cron expressions: what they are, and when they come, beside a slow reading that shares no code with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hanzo_compute.model.cron import Cron, zone_of

MINUTE = 60_000
DAY = 24 * 60 * MINUTE

ZONES = ("UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago")
"""With a step of half an hour, and with steps at midnight."""


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1000


def times(expression: str, zone: str, start: str, count: int) -> list[str]:
    cron, at, found = Cron.parse(expression), ms(start, zone), []
    for _ in range(count):
        following = cron.after(at, zone_of(zone))
        assert following is not None
        at = following
        found.append(datetime.fromtimestamp(at // 1000, ZoneInfo(zone)).strftime("%m-%d %H:%M%z"))
    return found


class TestDaylightSaving:
    """On 2024-03-31 Zurich's clocks go from 2:00 to 3:00, on 2024-10-27 from 3:00 to 2:00."""

    def test_a_time_that_does_not_exist_comes_when_the_clocks_have_skipped_it(self) -> None:
        assert times("30 2 * * *", "Europe/Zurich", "2024-03-30T12:00", 2) == ["03-31 03:00+0200", "04-01 02:30+0200"]

    def test_several_of_them_come_together(self) -> None:
        found = times("*/20 2 * * *", "Europe/Zurich", "2024-03-30T12:00", 2)
        assert found == ["03-31 03:00+0200", "04-01 02:00+0200"]

    def test_also_with_one_that_does_exist(self) -> None:
        found = times("0 2,3 * * *", "Europe/Zurich", "2024-03-30T12:00", 2)
        assert found == ["03-31 03:00+0200", "04-01 02:00+0200"]

    def test_a_time_that_exists_twice_comes_at_the_first(self) -> None:
        assert times("30 2 * * *", "Europe/Zurich", "2024-10-26T12:00", 2) == ["10-27 02:30+0200", "10-28 02:30+0100"]

    def test_without_hours_the_clocks_are_followed(self) -> None:
        found = times("*/30 * * * *", "Europe/Zurich", "2024-10-27T01:45", 5)
        twice = ["10-27 02:00+0200", "10-27 02:30+0200", "10-27 02:00+0100", "10-27 02:30+0100"]
        assert found == [*twice, "10-27 03:00+0100"]
        assert times("*/30 * * * *", "Europe/Zurich", "2024-03-31T01:15", 2) == ["03-31 01:30+0100", "03-31 03:00+0200"]

    def test_a_day_that_does_not_exist_comes_at_the_beginning_of_the_next(self) -> None:
        found = times("0 12 * * *", "Pacific/Apia", "2011-12-29T13:00", 2)
        assert found == ["12-31 00:00+1400", "12-31 12:00+1400"]


class TestDays:
    def test_a_number_and_a_weekday_are_either(self) -> None:
        assert times("0 0 13 * fri", "UTC", "2024-09-01T00:00", 3) == [
            "09-06 00:00+0000",
            "09-13 00:00+0000",
            "09-20 00:00+0000",
        ]

    def test_with_a_star_they_are_both(self) -> None:
        assert times("0 0 */2 * 1", "UTC", "2024-09-01T00:00", 2) == ["09-09 00:00+0000", "09-23 00:00+0000"]

    def test_sunday_is_0_and_7(self) -> None:
        assert Cron.parse("0 0 * * 0") == Cron.parse("0 0 * * 7") == Cron.parse("0 0 * * SUN")
        assert Cron.parse("0 0 * * 5-7").weekdays == {5, 6, 0}

    def test_29_february(self) -> None:
        assert times("0 0 29 2 *", "UTC", "2096-03-01T00:00", 1) == ["02-29 00:00+0000"]
        assert Cron.parse("0 0 29 2 *").after(ms("2096-03-01T00:00"), zone_of("UTC")) == ms("2104-02-29T00:00")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("* * * *", "must have five fields (minute hour day month weekday), and has 4"),
        ("0 * * * * *", "has 6"),
        ("@daily", "has 1"),
        ("60 * * * *", "minute: '60' is not from 0 to 59"),
        ("* 24 * * *", "hour: '24'"),
        ("* * 0 * *", "day of month: '0'"),
        ("* * * 13 *", "month: '13' is not from 1 to 12, or jan feb"),
        ("* * * * 8", "day of week: '8'"),
        ("* * * * foo", "day of week: 'foo'"),
        ("*/0 * * * *", "a step of 0"),
        ("5-1 * * * *", "ends before it begins"),
        ("1, * * * *", "minute: ''"),
        ("* * L * *", "day of month: 'L' is none of"),
        ("* * * * mon#2", "day of week: 'mon#2' is none of"),
        ("\u0661 * * * *", "minute"),
        ("0 0 30 2 *", "no day ever matches it"),
        ("0 0 31 2,4 *", "no day ever matches it"),
    ],
)
def test_what_is_refused_and_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        Cron.parse(text)
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["", "Zurich/", "../UTC", "/etc/passwd", "right/UTC", "America", "x" * 99, "U\x00"])
def test_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of an IANA time zone"):
        zone_of(name)


def test_a_zone_that_was_meant() -> None:
    with pytest.raises(ValueError, match=r"did you mean Europe/Zurich\?"):
        zone_of("europe/zurich")


# The slow reading: every minute of real time, and what the clocks show then.


def field(low: int, high: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    whole = range(low, high + 1)
    number = st.integers(low, high)
    one = number.map(lambda n: (str(n), frozenset({n})))
    span = st.tuples(number, number).map(sorted).map(lambda p: (f"{p[0]}-{p[1]}", frozenset(range(p[0], p[1] + 1))))
    star = st.just(("*", frozenset(whole)))
    steps = st.integers(1, 30).map(lambda n: (f"*/{n}", frozenset(whole[::n])))
    part = st.one_of(star, steps, one, span)
    several = st.lists(st.one_of(one, span), min_size=2, max_size=3).map(
        lambda parts: (",".join(p[0] for p in parts), frozenset().union(*(p[1] for p in parts)))
    )
    return st.one_of(part, several)


def shown(at: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at // 1000, UTC).astimezone(zone)


def brute(fields: list[tuple[str, frozenset[int]]], zone: ZoneInfo, begin: int, end: int) -> list[int]:
    """All times of [begin, end), found by looking at the clocks each minute."""
    (_, minutes), (hour_text, hours), (day_text, days), (_, months), (week_text, weekdays) = fields
    both = day_text.startswith("*") or week_text.startswith("*")
    weekdays = frozenset(day % 7 for day in weekdays)

    def matches(clock: datetime) -> bool:
        by_number, by_week = clock.day in days, (clock.weekday() + 1) % 7 in weekdays
        day = (by_number and by_week) if both else (by_number or by_week)
        return day and clock.month in months and clock.hour in hours and clock.minute in minutes

    found = []
    seen: set[datetime] = set()
    previous = shown(begin - 2 * DAY - MINUTE, zone).replace(tzinfo=None)
    for at in range(begin - 2 * DAY, end, MINUTE):
        clock = shown(at, zone).replace(tzinfo=None)
        passed = [clock]
        while not hour_text.startswith("*") and passed[-1] - previous > timedelta(minutes=1):
            passed.append(passed[-1] - timedelta(minutes=1))
        due = [each for each in passed if matches(each) and (hour_text.startswith("*") or each not in seen)]
        seen.update(passed)
        if due and begin <= at:
            found.append(at)
        previous = clock
    return found


CHANGES = {
    "UTC": ["2024-02-28T12:00"],
    "Europe/Zurich": ["2024-03-31T00:30", "2024-10-27T00:30", "2024-12-31T20:00"],
    "America/New_York": ["2024-03-10T05:00", "2024-11-03T04:00"],
    "Australia/Lord_Howe": ["2024-04-06T13:00", "2024-10-05T14:00"],
    "Africa/Cairo": ["2024-04-25T20:00", "2024-10-31T19:00"],
    "America/Santiago": ["2024-04-07T01:00", "2024-09-08T02:00"],
}
"""Moments (UTC) shortly before the clocks are set."""


@settings(max_examples=80, deadline=None)
@given(
    fields=st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)).map(list),
    place=st.sampled_from([(zone, moment) for zone, moments in CHANGES.items() for moment in moments]),
    back_min=st.integers(0, 36 * 60),
)
@example([("*/10", frozenset(range(0, 60, 10))), ("2", frozenset({2})), *[("*", frozenset(range(32)))] * 3],
         ("Australia/Lord_Howe", "2024-04-06T13:00"), 60)  # fmt: skip
@example([("0", frozenset({0})), ("0", frozenset({0})), *[("*", frozenset(range(32)))] * 3],
         ("Africa/Cairo", "2024-04-25T20:00"), 60)  # fmt: skip
def test_times_are_those_that_the_clocks_show(
    fields: list[tuple[str, frozenset[int]]], place: tuple[str, str], back_min: int
) -> None:
    zone = ZoneInfo(place[0])
    begin = ms(place[1]) - back_min * MINUTE
    end = begin + 4 * DAY
    expected = brute(fields, zone, begin, end)
    try:
        cron = Cron.parse(" ".join(text for text, _ in fields))
    except ValueError:  # such a day never comes
        assert expected == []
        return
    found, at = [], begin - 1
    while (following := cron.after(at, zone)) is not None and following < end:
        found.append(at := following)
    assert found == expected
    assert cron.before(end - 1, zone, begin, 10_000) == expected
    assert cron.before(end - 1, zone, begin, 3) == expected[-3:]
