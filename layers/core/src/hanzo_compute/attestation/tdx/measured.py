"""What was measured, against a policy's reference values and an event log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hanzo_compute.attestation import eventlog
from hanzo_compute.attestation.checks import Findings, Group, Unreadable
from hanzo_compute.attestation.tdx.quote import TdReport

Values = Mapping[str, bytes | int]
Reference = Mapping[str, bytes | int | None]
RTMRS: Final = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
_AT_LEAST: Final = frozenset({"isvsvn"})


def compare(
    findings: Findings, prefix: str, actual: Values, references: Sequence[Reference], *, required: bool
) -> None:
    """One reference must hold in all its values; the one that comes nearest is shown, value by value."""
    source = f"policy: {prefix}.references"
    if not references:
        text = "the policy has no reference values"
        findings.check(f"{prefix}.measurement", Group.MEASURED, None, text, source=source, required=required)
        return
    nearest = min(references, key=lambda each: _wrong(actual, each))
    for name, value in actual.items():
        expected = nearest.get(name)
        ok = _holds(name, value, expected)
        text = {True: "as the reference says", False: "not what the reference says", None: "no reference value"}[ok]
        findings.check(
            f"{prefix}.{name}",
            Group.MEASURED,
            ok,
            f"{name}: {text}",
            expected=expected,
            actual=value,
            source=source,
            required=ok is not None,
        )
    ok = not _wrong(actual, nearest)
    text = "it is what a reference says" if ok else "it is what no reference says"
    findings.check(f"{prefix}.measurement", Group.MEASURED, ok, text, source=source)


def replay_log(findings: Findings, body: TdReport, log: bytes | None, *, required: bool) -> None:
    """A log's events must make the registers what they are (UEFI 2.10, section 38.4.1: index i + 1 is RTMR i)."""
    source = "UEFI 2.10, section 38.4.1; policy: tdx.require_event_log"
    if log is None:
        text = "no event log came with it"
        findings.check("tdx.eventlog", Group.MEASURED, None, text, source=source, required=required)
        return
    try:
        registers = eventlog.replay(eventlog.parse(log), eventlog.SHA384)
    except Unreadable as error:
        findings.check("tdx.eventlog", Group.MEASURED, False, str(error), source=source)
        return
    strange = sorted(set(registers) - {1, 2, 3, 4})
    wrong = [
        name for index, name in enumerate(RTMRS, start=1) if registers.get(index, bytes(48)) != getattr(body, name)
    ]
    text = "the event log makes the registers what they are"
    if wrong:
        text = f"the event log does not make {', '.join(wrong)} what the quote says"
    elif strange:
        text = f"the event log extends a register that is none: {strange[0]}"
    findings.check("tdx.eventlog", Group.MEASURED, not (wrong or strange), text, source=source)


def _wrong(actual: Values, reference: Reference) -> int:
    return sum(_holds(name, value, reference.get(name)) is False for name, value in actual.items())


def _holds(name: str, value: bytes | int, expected: bytes | int | None) -> bool | None:
    if expected is None:
        return None
    if name in _AT_LEAST and isinstance(value, int) and isinstance(expected, int):
        return value >= expected
    return value == expected
