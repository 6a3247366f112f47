"""``python -m hllm.hmm.build``: compiles the optional C form of the recursions. See ``accelerator``."""

from __future__ import annotations

import sys

from hllm.hmm import accelerator

if __name__ == "__main__":
    try:
        sys.stdout.write(f"built {accelerator.build()}\n")
    except (OSError, RuntimeError) as error:
        sys.exit(str(error))
