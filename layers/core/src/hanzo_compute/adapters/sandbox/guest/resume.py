"""Runs inside the interpreter from which a snapshot is taken, and once more in each copy that goes on from there.

The snapshot is taken where the interactive hook exits, with the code that is the argument: no code of Python's runs
then. Each copy enters ``_start`` again, which reads arguments, environment and folders anew, and then looks for the
program: that is when ``_go_on`` is called.
"""

import _imp
import functools
import gc
import os
import posix
import random
import site
import sys
import types
from typing import Any, NoReturn

COMMON = (
    *("base64", "collections", "dataclasses", "datetime", "enum", "io", "itertools", "json", "math", "re", "string"),
    *("struct", "textwrap", "time", "traceback", "typing"),
)
"""What programs import most: as part of the snapshot it costs them nothing. None starts threads or ends with others."""

_main = dict(sys.modules["__main__"].__dict__)
_interactive = sys.__interactivehook__


def _go_on(path: str) -> NoReturn:
    """Make this copy one of its own. A hook of the import system, as which it finds nothing."""
    sys.path_hooks = _hooks[1:]
    sys.__interactivehook__ = _interactive
    # What is frozen goes last when the interpreter ends: the program's own module must go first.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__.update(_main)
    own = _imp.create_builtin(posix.__spec__)
    _imp.exec_builtin(own)  # reads the environment
    environ: Any = os.environ
    environ._data.clear()
    environ._data.update(own.environ)
    random.seed()
    searched = os.environ.get("PYTHONPATH")
    if searched:
        sys.path[:0] = searched.split(":")
        site.removeduppaths()
        site.execsitecustomize()
    raise ImportError


for _name in COMMON:
    __import__(_name)
# Kept by its name here, too: who goes through it has no reference of its own.
_hooks = sys.path_hooks = [_go_on, *sys.path_hooks]
sys.__interactivehook__ = functools.partial(os._exit, int(sys.argv[1]))
gc.collect()
gc.freeze()  # what is here already is no garbage of the program's, and is not looked through when it ends
