"""Times, sizes, tables and sentences for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute_host.cli.escape import escape_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES: Final = {
    "succeeded": "green",
    "running": "cyan",
    "retrying": "yellow",
    "cancelled": "yellow",
    "failed": "bold red",
    "timed_out": "bold red",
    "expired": "bold red",
    "dead": "bold red",
}
"""Styles of states; the word always stands beside the colour."""


def moment(value: str) -> datetime:
    """An RFC 3339 time of the API."""
    return datetime.fromisoformat(value)


def age(value: str, now: datetime | None = None) -> str:
    """How long ago, in its largest unit."""
    return span(((now or datetime.now(UTC)) - moment(value)).total_seconds())


def span(seconds: float) -> str:
    """Seconds in one unit: ``12s``, ``5m``, ``3h``, ``2d``."""
    seconds = max(0, seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def duration(ms: float) -> str:
    """Milliseconds to read: ``850 ms``, ``1.20 s``, ``2 min 5 s``."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    whole = timedelta(milliseconds=ms)
    return f"{int(whole.total_seconds() // 60)} min {int(whole.total_seconds() % 60)} s"


def size(count: float) -> str:
    """Bytes to read: ``512 B``, ``34.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def elapsed(job: dict[str, Any], now: datetime | None = None) -> str:
    """Time from start to end, or to now while it runs; nothing while it waits."""
    if "started_at" not in job or ("finished_at" not in job and job["state"] != "running"):
        return ""
    end = moment(job["finished_at"]) if "finished_at" in job else now or datetime.now(UTC)
    return duration((end - moment(job["started_at"])).total_seconds() * 1000)


def cell(value: Any, style: str = "") -> Text:
    """Others' text as a table cell: harmless, and never read as markup."""
    from rich.text import Text

    return Text("" if value is None else escape_line(str(value)), style=style)


def state_cell(state: str) -> Text:
    """A state in its colour."""
    return cell(state, STYLES.get(state, ""))


def print_table(console: Console, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A plain table; the first column is never cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*[value if isinstance(value, Text) else cell(value) for value in row])
    console.print(table)


def print_pairs(console: Console, pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values below each other."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value if isinstance(value, Text) else cell(value))
    console.print(table)


def usage_text(usage: dict[str, Any]) -> str:
    """What an attempt used, in one line."""
    parts = [duration(usage["wall_ms"])]
    if usage.get("fuel") is not None:
        parts.append(f"fuel {usage['fuel']:,}")
    parts.append(f"memory {size(usage['memory_peak_bytes'])}")
    return " · ".join(parts)


def end_text(state: str, outcome: dict[str, Any] | None, reason: str | None) -> str:
    """How a job ended and why, in one line."""
    if outcome is None:
        return f"{state} before it ran" + (f": {reason}" if reason else "")
    if state == "succeeded":
        return state
    code, trap = outcome.get("exit_code"), outcome.get("trap")
    why = [f"exit code {code}" if code else "", f"trap {trap}" if trap else "", outcome.get("detail", "")]
    # The runner's detail says the code or trap too, and more.
    told = [part for part in why[:2] if part and part not in why[2]] + [part for part in why[2:] if part]
    return f"{state}: {', '.join(told)}" if told else state
