"""Text of three domains with true labels: docstrings, by the package and the part of it that they describe.

A domain is a package (SymPy, SciPy, Python's standard library), a text is the summary of a function or class, and its
class is the part of the package that it is in. Source files are parsed, never imported.
"""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PARTS = {
    "sympy": ("polys", "physics", "combinatorics", "matrices", "solvers", "geometry", "integrals", "stats"),
    "scipy": ("stats", "optimize", "signal", "sparse", "interpolate", "io", "linalg", "spatial"),
    "python": ("asyncio", "email", "tkinter", "unittest", "multiprocessing", "http", "importlib", "xml"),
}
TRAIN, TEST = 60, 30
"""At most so many texts of each class."""


def collect(seed: int = 0) -> dict[str, dict[str, Any]]:
    """By domain: the names of its classes, and pairs (text, number of its class) to train and to test with."""
    found = {}
    for domain, parts in PARTS.items():
        chosen = random.Random(seed)
        train: list[tuple[str, int]] = []
        test: list[tuple[str, int]] = []
        seen: set[str] = set()
        for number, part in enumerate(parts):
            # A text that two parts have has no true label.
            texts = [text for text in dict.fromkeys(summaries(_folder(domain) / part)) if text not in seen]
            seen.update(texts)
            chosen.shuffle(texts)
            held_out = min(TEST, len(texts) // 4)
            test += [(text, number) for text in texts[:held_out]]
            train += [(text, number) for text in texts[held_out : held_out + TRAIN]]
        chosen.shuffle(train)
        chosen.shuffle(test)
        found[domain] = {"classes": parts, "train": train, "test": test}
    return found


def summaries(folder: Path) -> Iterator[str]:
    """The first paragraphs of the docstrings below ``folder``, without tests; none of fewer than four words."""
    for path in sorted(folder.rglob("*.py")):
        if "tests" in path.parts or path.name.startswith("test_"):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):  # some packages ship files that are not Python, on purpose
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                if len(text.split()) >= 4:
                    yield text


def _folder(domain: str) -> Path:
    if domain == "python":
        return Path(sysconfig.get_paths()["stdlib"])
    spec = find_spec(domain)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{domain} is not installed: pip install -r requirements.txt")
    return Path(spec.origin).parent
