"""Files of a program laid out in a folder that it sees."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hanzo_compute.model.package import InvalidPackage, path_problem

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(root: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files by their paths into a folder that is new and nobody else's: nothing outside it, nothing twice.

    Raises:
        InvalidPackage: a path leads elsewhere. Besides, OSError.
    """
    for name, data in files:
        problem = path_problem(name)
        if problem is not None:  # whoever made the paths has checked them: it is here that it counts
            raise InvalidPackage(f"the name {name[:80]!r} {problem}")
        path = root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, _NEW, 0o600), "wb") as file:
            file.write(data)
