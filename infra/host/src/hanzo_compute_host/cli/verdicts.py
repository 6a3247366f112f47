"""Attestation results for people: the verdict and what speaks against it, or every check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hanzo_compute_host.cli.escape import escape_line

if TYPE_CHECKING:
    from rich.console import Console

    from hanzo_compute.attestation import AttestationResult, Check

_STYLES: Final = {"accept": "green", "reject": "bold red", "unavailable": "yellow"}
_MARKS: Final = {True: "ok", False: "no", None: "??"}


def summary(console: Console, result: AttestationResult) -> None:
    """The verdict, and each check for which it is not an acceptance."""
    _head(console, result)
    for check in result.checks:
        if check.required and check.ok is not True:
            _line(console, check, "  ")


def tree(console: Console, result: AttestationResult) -> None:
    """The verdict, and each check under its group; what the policy does not ask for is in brackets."""
    _head(console, result)
    for group in dict.fromkeys(check.group for check in result.checks):
        console.print(group.value)
        for check in result.checks:
            if check.group is group:
                _line(console, check, "  ")
                _compared(console, check, "       ")


def _head(console: Console, result: AttestationResult) -> None:
    verdict = result.verdict.value
    said = f"{verdict}: {'authentic' if result.authentic else 'not authentic'}, tier {int(result.tier)}"
    console.print(said, style=_STYLES[verdict])
    console.print(escape_line(f"policy {result.policy}; no higher tier: {result.tier_why}"))


def _line(console: Console, check: Check, indent: str) -> None:
    text = f"{indent}{_MARKS[check.ok]}  {check.id}: {check.detail}"
    missing = f" (missing: {check.missing})" if check.missing else ""
    line = escape_line(f"{text}{missing}")
    style = "red" if check.required and check.ok is not True else None
    console.print(line if check.required else f"{line} [not asked for]", style=style, soft_wrap=True)


def _compared(console: Console, check: Check, indent: str) -> None:
    for name, value in (("expected", check.expected), ("actual", check.actual), ("by", check.source)):
        if value is not None and (check.ok is not True or name == "by"):
            console.print(escape_line(f"{indent}{name}: {value}"), soft_wrap=True)
