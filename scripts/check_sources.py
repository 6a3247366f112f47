"""Fails on what must not be in the sources, whichever tool would let it pass.

Unfinished work, tests that can be skipped, files that have grown too long, addresses of
package registries, paths of one machine, and locks that do not pin. Each finding is one
line, `file:line: what`; the exit code is 1 when there is any.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 600

# The one place that may skip a test: it skips where an engine is missing, and fails instead
# when REQUIRE_ALL is set.
MAY_SKIP = frozenset({"tests/support/engines.py"})

SKIPPING = {
    "skip",
    "skipif",
    "skipIf",
    "skipUnless",
    "skipTest",
    "SkipTest",
    "xfail",
    "importorskip",
    "expectedFailure",
}
SKIPPING_MODULES = {"pytest", "unittest"}

# Put together from pieces, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error"]) + r")\b")
REGISTRY = re.compile(
    "|".join(
        re.escape(name + "." + domain)
        for name, domain in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("registry.npmjs", "org"),
            ("registry.yarnpkg", "com"),
            ("deb.debian", "org"),
            ("snapshot.debian", "org"),
            ("archive.ubuntu", "com"),
            ("proxy.golang", "org"),
        ]
    )
)
MACHINE_PATH = re.compile(r"(?<![\w.$})*-])/(?:" + "|".join(["work/(?:main|shared|\\.)", "root/", "home/\\w+/"]) + ")")

# Written by tools or by others: their length is not ours to choose.
NO_LENGTH_LIMIT = {".json", ".lock", ".svg"}
NO_LENGTH_LIMIT_NAMES = {"LICENSE"}

PINNED = re.compile(r"^[A-Za-z0-9][\w.-]*(\[[\w,-]+\])?==[^\s*;]+(\s*;[^\\]*)?(\s*\\?$|\s+--hash=)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")

Finding = tuple[int, str]


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    findings = [f"{name}:{line}: {text}" for name in files(root) for line, text in check(root, name)]
    print("\n".join(findings) if findings else "check_sources: nothing found")
    return 1 if findings else 0


def files(root: Path) -> list[str]:
    """What git tracks or would offer to add, without what is deleted but not yet committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted({name for name in listed if name and (root / name).is_file() and not (root / name).is_symlink()})


def check(root: Path, name: str) -> Iterator[Finding]:
    """The findings in one file; a file that is not text has none."""
    try:
        text = (root / name).read_text("utf-8")
    except UnicodeDecodeError:
        return
    path = Path(name)
    in_tests = path.parts[0] == "tests"
    vendored = "vendor" in path.parts
    if not vendored:
        yield from check_lines(text, in_tests=in_tests)
        yield from check_length(path, text)
    if path.suffix == ".lock" and path.parts[0] == "requirements":
        yield from check_lock(text)
    if in_tests and path.suffix == ".py" and name not in MAY_SKIP:
        yield from check_skips(text)


def check_lines(text: str, *, in_tests: bool) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), 1):
        if not in_tests and (found := UNFINISHED.search(line)):
            yield number, f"unfinished: {found[0]}"
        if found := REGISTRY.search(line):
            yield number, f"address of a package registry: {found[0]}"
        if found := MACHINE_PATH.search(line):
            yield number, f"path of one machine: {found[0]}"


def check_length(path: Path, text: str) -> Iterator[Finding]:
    lines = text.count("\n")
    if lines > MAX_LINES and path.suffix not in NO_LENGTH_LIMIT and path.name not in NO_LENGTH_LIMIT_NAMES:
        yield lines, f"longer than {MAX_LINES} lines"


def check_lock(text: str) -> Iterator[Finding]:
    """Each requirement names one version and at least one hash."""
    joined, start = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        start = start if joined else number
        joined += line.rstrip("\\") + " "
        if line.endswith("\\"):
            continue
        if not PINNED.match(joined):
            yield start, f"not pinned to a version: {joined.split()[0]}"
        elif not HASH.search(joined):
            yield start, f"pinned without a hash: {joined.split()[0]}"
        joined = ""


def check_skips(text: str) -> Iterator[Finding]:
    """Uses of pytest's and unittest's ways to pass over a test."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(attr=attr, value=value) if attr in SKIPPING and _is_test_tool(value, attr):
                yield node.lineno, f"a test that may be passed over: {attr}"
            case ast.ImportFrom(module=module, names=names) if (module or "").split(".")[0] in SKIPPING_MODULES:
                for alias in names:
                    if alias.name in SKIPPING:
                        yield node.lineno, f"a test that may be passed over: {alias.name}"


def _is_test_tool(value: ast.expr, attr: str) -> bool:
    """Whether `value.attr` is pytest's, unittest's or a mark's, not some other object's method."""
    match value:
        case ast.Name(id=name):
            return name in {"pytest", "unittest", "mark", "_pytest"} or attr == "skipTest"
        case ast.Attribute(attr="mark" | "case" | "outcomes"):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
