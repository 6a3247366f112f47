"""The user as a witness: each checkpoint that a platform shows must extend the last one that was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hanzo_compute.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, Rejected
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.checkpoint import Checkpoint, CheckpointError, VerifierKey, open_checkpoint
from hanzo_compute.transparency.form import ReceiptInvalid
from hanzo_compute.transparency.receipt import Verified, verify
from hanzo_compute_host.cli.known import FORGET, Known

if TYPE_CHECKING:
    from hanzo_compute.wiring import ProofClient


def look(client: ProofClient, known: Known) -> tuple[Checkpoint, VerifierKey, str]:
    """The platform's newest checkpoint, once it has been shown to extend the last one; remembered from now on.

    Raises:
        Rejected: another key, another log, or one that was rewritten.
        NotFound: nothing has been logged yet.
    """
    found = client.checkpoint()
    try:
        given = VerifierKey.parse(str(found.get("key")))
    except ValueError as error:
        raise Rejected(f"the platform's key is none: {error}", name="platform_key") from None
    key = known.online(client.url, given)
    note = str(found.get("note"))
    last = known.checkpoint(key.name)
    point = extend(client, known, key, note)
    if last is not None and point.size < (seen := opened(last, key)).size:
        raise _rewritten(client.url, seen, point, "the newest checkpoint is older than one that was seen")
    return point, key, note


def extend(client: ProofClient, known: Known, key: VerifierKey, note: str) -> Checkpoint:
    """A checkpoint under the pinned key, proven to be of the same log as the last one that was seen."""
    point = opened(note, key)
    last = known.checkpoint(key.name)
    if last is None:
        known.remember(key.name, note)
        return point
    seen = opened(last, key)
    small, large = sorted((seen, point), key=lambda each: each.size)
    try:
        if small.size == large.size and small.root != large.root:
            raise merkle.ProofError("two logs of one size")
        if small.size != large.size:
            proof = client.consistency(small.size, large.size)
            merkle.verify_consistency(small.size, large.size, small.root, large.root, proof)
    except (merkle.ProofError, InvalidRequest, NotFound, Conflict, PermissionDenied) as error:
        # Also when it refuses to prove it: what it has signed, it can prove.
        raise _rewritten(client.url, seen, point, str(error)) from None
    if point.size > seen.size:
        known.remember(key.name, note)
    return point


def opened(note: str, key: VerifierKey) -> Checkpoint:
    """A checkpoint whose signature holds."""
    try:
        found = open_checkpoint(note, key)
    except CheckpointError as error:
        raise Rejected(f"the checkpoint does not hold: {error}", name="checkpoint") from None
    if found.origin != key.name:
        raise Rejected(f"the checkpoint is of the log {found.origin}, not of {key.name}", name="checkpoint")
    if not found.size:
        raise Rejected("the checkpoint is of an empty log: none is signed", name="checkpoint")
    return found


def _rewritten(url: str, seen: Checkpoint, point: Checkpoint, why: str) -> Rejected:
    return Rejected(
        f"the log of {url} has been rewritten: {point.size} leaves now do not extend the {seen.size} of before ({why})",
        hint=f"keep the receipts that you have, they prove it; {FORGET} {url}",
        name="checkpoint",
        seen={"size": seen.size, "root": seen.root.hex()},
        shown={"size": point.size, "root": point.root.hex()},
    )


def verified(
    receipt: Any, known: Known, *, job: str | None, platform: VerifierKey | None, agents: set[str]
) -> Verified:
    """A receipt, verified offline under pinned or given keys, and against the last checkpoint that was seen.

    Raises:
        Rejected: the first thing that does not hold.
    """

    def trusted(given: VerifierKey) -> VerifierKey | None:
        return platform if platform is not None else known.offline(given)

    def may_speak(origin: str, name: str, key_id: str) -> bool:
        return key_id in agents if agents else known.agent(origin, name, key_id)

    try:
        found = verify(receipt, trusted, may_speak, job=job)
        seen = known.checkpoint(found.platform_key.name)
        if seen is not None:
            last = opened(seen, found.platform_key)
            if last.size == found.checkpoint.size and last.root != found.checkpoint.root:
                raise ReceiptInvalid("checkpoint", "is of another log than the one of this size that you have seen")
    except ReceiptInvalid as error:
        raise Rejected(f"{error.name}: {error.why}", hint=_hint(error), name=error.name, why=error.why) from None
    return found


def _hint(error: ReceiptInvalid) -> str | None:
    if error.name == "platform_key":
        return "ask the platform once (hzc log checkpoint), or give its key: --platform-key"
    if error.name == "agent_key":
        return "compare with the key that the agent's operator publishes, and give it: --agent-key"
    return None
