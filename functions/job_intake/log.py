"""Routes of the transparency log: hashes only, the same for every tenant."""

from __future__ import annotations

import base64
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Query

from hanzo_compute.front.api import reply
from hanzo_compute.model.spec import format_time
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import log
from hanzo_compute.wiring import container
from job_intake.api import api

Size = Annotated[int, Query(ge=0, le=2**53, description="Number of leaves.")]


@api.route("GET", "/v1/log/checkpoint", action=Action.READ, summary="The newest signed checkpoint")
def checkpoint() -> Response[str]:
    """`note` is the checkpoint in C2SP tlog-checkpoint form, `key` the key that it is signed with."""
    found = log.checkpoint(container())
    at_ms = found.pop("at_ms")
    return reply(found | {"at": format_time(at_ms)})


@api.route("GET", "/v1/log/proof", action=Action.READ, summary="Proof that a leaf is in the log")
def proof(
    index: Annotated[int, Query(ge=0, le=2**53, description="Place of the leaf, from 0.")],
    size: Annotated[
        int | None, Query(ge=1, le=2**53, description="Of which log; else the newest checkpoint's.")
    ] = None,
) -> Response[str]:
    """RFC 9162 section 2.1.3, hashes in hex."""
    size = log.checkpoint(container())["size"] if size is None else size
    assert size is not None
    return reply({"index": index, "size": size, "hashes": log.inclusion(container(), index, size)})


@api.route("GET", "/v1/log/consistency", action=Action.READ, summary="Proof that the log was only appended to")
def consistency(
    old: Annotated[int, Query(alias="from", ge=1, le=2**53, description="Leaves in the older log.")],
    new: Annotated[int, Query(alias="to", ge=1, le=2**53, description="Leaves in the newer log.")],
) -> Response[str]:
    """RFC 9162 section 2.1.4, hashes in hex."""
    return reply({"from": old, "to": new, "hashes": log.consistency(container(), old, new)})


@api.route("GET", "/v1/log/entries", action=Action.READ, summary="Leaves of the log")
def entries(
    start: Annotated[int, Query(ge=0, le=2**53, description="Place of the first leaf.")] = 0,
    limit: Annotated[int, Query(ge=1, le=log.ENTRIES_MAX, description="Leaves in this answer.")] = log.ENTRIES_MAX,
) -> Response[str]:
    """32 bytes for each leaf, all after each other, in base64; as far as the newest checkpoint goes."""
    found = log.entries(container(), start, limit)
    return reply({"start": start, "count": len(found) // log.LEAF_BYTES, "leaves": base64.b64encode(found).decode()})
