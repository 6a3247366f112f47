"""The form of a receipt: exact types and bounds, before anything in it is believed or computed with."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from hanzo_compute.model import money
from hanzo_compute.model.canonical import EXACT_MAX
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State

FORMAT: Final = "hanzo-compute/receipt/v1"

Count = Annotated[int, Field(ge=0, le=EXACT_MAX)]
Text = Annotated[str, Field(max_length=8192)]
Units = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,77})$")]
Token = Annotated[str, Field(pattern=f"^({money.TOKEN[1:-1]})?$")]
"""Id of a token; empty in a bill of nothing."""
Hex20 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]
Word = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Digests = Annotated[dict[Text, Text], Field(max_length=64)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Bill(_Form):
    """What an outcome costs."""

    token: Token
    units: Units


class Committed(_Form):
    """What the leaf has of a statement."""

    root: Hex32
    signature: Hex64
    key: Hex32


class LeafBody(_Form):
    """What the platform commits to."""

    version: Literal[1]
    kind: Literal["outcome", "end"]
    tenant: Text
    job: Text
    attempt: Count
    state: Text
    category: Text
    reason: Text | None
    at_ms: Count
    bill: Bill
    billed: Units
    statement: Committed | None


class BatchBody(_Form):
    """What the platform commits to of a batch of invocations."""

    version: Literal[1]
    kind: Literal["batch"]
    tenant: Text
    batch: Text
    invocations: Annotated[int, Field(ge=1, le=EXACT_MAX)]
    root: Hex32
    at_ms: Count
    bill: Bill
    statement: Committed


class Leaf(_Form):
    """The leaf with its salt."""

    salt: Hex32
    data: Hex32
    body: LeafBody
    fields: Digests


class BatchLeaf(_Form):
    """The leaf of a batch with its salt."""

    salt: Hex32
    data: Hex32
    body: BatchBody
    fields: Digests


class Proof(_Form):
    """The leaf's place, and the path to the root."""

    index: Count
    hashes: Annotated[list[Hex32], Field(max_length=64)]


class Output(_Form):
    """An output, by its digest."""

    name: Text
    size: Count
    sha256: Hex32


class Exit(_Form):
    """How an attempt ended; what does not apply is left out."""

    category: Text
    truncated: Annotated[list[Text], Field(max_length=8)]
    oom: bool
    child_oom: bool
    timed_out: bool
    code: Annotated[int, Field(ge=-(2**31), lt=2**32)] = 0
    signal: Count = 0
    trap: Text = ""


class Usage(_Form):
    """What an attempt used."""

    wall_ms: Count
    cpu_ms: Count
    memory_peak_bytes: Count
    memory_mib_ms: Count
    fuel: Count = 0
    gpu_ms: Count
    egress_bytes: Count


class Price(_Form):
    """The bill, and what it follows from."""

    token: Token
    units: Units
    most: Units
    tariff: Text
    rates: Hex32


class Tier(_Form):
    """Privacy tiers."""

    requested: Annotated[int, Field(ge=0, le=4)]
    delivered: Annotated[int, Field(ge=0, le=4)]
    basis: Literal["operator", "evidence"]


class OperatorTier(Tier):
    """Privacy tiers where nothing was proved: the operator says so."""

    basis: Literal["operator"]


class Runtime(_Form):
    """What it ran on."""

    name: Text
    version: Text


class Settlement(_Form):
    """Where it would be settled."""

    chain_id: Count
    contract: Hex20
    order: Word


class Statement(_Form):
    """What the agent says."""

    job: Text
    attempt: Count
    agent: Text
    spec: Hex32
    code: Hex32
    input: Hex32 | None
    outputs: Annotated[list[Output], Field(max_length=64)]
    exit: Exit
    usage: Usage
    price: Price
    tier: Tier
    evidence: Hex32 | None
    runtime: Runtime
    settlement: Settlement

    @field_validator("evidence")
    @classmethod
    def _basis(cls, value: str | None, info: ValidationInfo) -> str | None:
        tier = info.data.get("tier")
        if tier is not None and (tier.basis == "evidence") != (value is not None):
            raise ValueError("is there if, and only if, the tier's basis is evidence")
        return value


class InvocationStatement(_Form):
    """What the agent says of an invocation."""

    invocation: Text
    function: Text
    agent: Text
    spec: Hex32
    code: Hex32
    input: Hex32
    outputs: Annotated[list[Output], Field(max_length=64)]
    exit: Exit
    usage: Usage
    price: Price
    tier: OperatorTier
    evidence: None
    runtime: Runtime
    settlement: Settlement
    started_ms: Count


class Header(_Form):
    """What the agent signed of a batch."""

    batch: Text
    agent: Text
    invocations: Annotated[int, Field(ge=1, le=EXACT_MAX)]
    root: Hex32
    price: Bill
    settlement: Settlement


class Batch(_Form):
    """The batch of an invocation, and the path from its statement to the batch's root."""

    header: Header
    fields: Digests
    proof: Proof


class EndReceipt(_Form):
    """The receipt of an outcome without a statement, or of an end without an outcome."""

    format: Literal["hanzo-compute/receipt/v1"]
    leaf: Leaf
    proof: Proof
    checkpoint: str
    platform_key: Text


class Receipt(EndReceipt):
    """The receipt of an attempt that an agent signed for."""

    statement: Statement
    fields: Digests
    signature: Hex64
    agent_key: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){1,200}$")]
    rates: dict[str, Any]


class InvocationReceipt(_Form):
    """The receipt of an invocation."""

    format: Literal["hanzo-compute/receipt/v1"]
    leaf: BatchLeaf
    proof: Proof
    checkpoint: str
    platform_key: Text
    batch: Batch
    statement: InvocationStatement
    fields: Digests
    signature: Hex64
    agent_key: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){1,200}$")]
    rates: dict[str, Any]


class ReceiptInvalid(ValueError):
    """``name`` is the path of what does not hold, ``why`` says what is wrong with it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


STATES: Final = frozenset(State)
CATEGORIES: Final = frozenset(Category)
BATCH: Final = "batch"
"""The kind of leaf that receipts of invocations have."""


def check(receipt: Any) -> None:
    """Raise ReceiptInvalid for what is no receipt."""
    if not isinstance(receipt, dict) or receipt.get("format") != FORMAT:
        raise ReceiptInvalid("format", f"is not {FORMAT}")
    leaf = receipt.get("leaf")
    body = leaf.get("body") if isinstance(leaf, dict) else None
    stated = isinstance(body, dict) and body.get("statement") is not None
    batch = isinstance(body, dict) and body.get("kind") == BATCH
    try:
        (InvocationReceipt if batch else Receipt if stated else EndReceipt).model_validate(receipt)
    except (ValidationError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise ReceiptInvalid("format", "is nested too deeply") from None
        first = error.errors(include_url=False, include_input=False)[0]
        raise ReceiptInvalid(".".join(map(str, first["loc"])), first["msg"]) from None
    assert isinstance(body, dict)
    if batch:
        if receipt["statement"]["exit"]["category"] not in CATEGORIES:
            raise ReceiptInvalid("statement.exit.category", "is no category of an outcome")
        return
    if body["state"] not in STATES:
        raise ReceiptInvalid("leaf.body.state", "is no state of a job")
    if body["category"] not in CATEGORIES:
        raise ReceiptInvalid("leaf.body.category", "is no category of an outcome")
    if body["kind"] == "end" and stated:
        raise ReceiptInvalid("leaf.body.kind", "is end, and there is a statement")
