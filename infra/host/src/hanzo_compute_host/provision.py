"""``python -m hanzo_compute_host.provision``: makes the credentials of a platform that starts.

Prints JSON: ``owner`` (a key that has just been made, or null) and ``runner`` (the key for the host's own agents).
A process of its own, because the supervisor itself opens no store. ``--new-owner`` makes another owner's key when
the first one is known to be lost: whoever holds the state folder owns the platform.
"""

from __future__ import annotations

import argparse
import json
import sys

from hanzo_compute import wiring
from hanzo_compute.errors import ComputeError
from hanzo_compute.security.authorizer import Role
from hanzo_compute.services import credentials, log, pricing
from hanzo_compute_host import process


def main(argv: list[str] | None = None) -> int:
    """Make what is missing; prints only what is durable."""
    parser = argparse.ArgumentParser(prog="python -m hanzo_compute_host.provision", description=main.__doc__)
    parser.add_argument("--new-owner", action="store_true")
    options = parser.parse_args(argv)
    process.prepare()
    container = wiring.container()
    try:
        owner = credentials.ensure_owner(container)
        if owner is None and options.new_owner:
            owner = credentials.create(container, credentials.DEFAULT_TENANT, Role.OWNER, "owner")
        runner = credentials.ensure_runner(container)
        pricing.publish(container)
        log.verifier_key(container)  # makes the key of the transparency log
        ticket = None if container.commits is None else container.commits.take()
        if container.commits is not None and ticket is not None:
            container.commits.wait(ticket)
    except ComputeError as error:
        sys.stderr.write(f"{error.message}: {error.hint}\n")
        return error.exit_code
    sys.stdout.write(json.dumps({"owner": owner, "runner": runner}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
