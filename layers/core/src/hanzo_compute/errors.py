"""Every error of the platform: one root, classes by what the caller can do about it.

    ComputeError
    ├── InvalidRequest      the request must change            (400; exit 2)
    │   ├── InvalidSpec     … one or more fields of a job spec
    │   ├── NotSupported    … it asks for what this platform cannot do (yet)
    │   └── PayloadTooLarge … it is larger than a documented bound (413)
    ├── Unauthenticated     send a credential                  (401; exit 4)
    ├── PermissionDenied    use another credential             (403; exit 4)
    ├── Rejected            do not trust what was presented    (422; exit 4)
    ├── EvidenceUnavailable see to the hardware it names       (503; exit 3)
    ├── NotFound            check the id                       (404; exit 2)
    ├── Conflict            read the resource again            (409; exit 2)
    │   ├── StaleFence      … this attempt lost its lease: stop, discard the work
    │   └── IdempotencyMismatch  … the key was used with another body
    ├── FunctionFailed      the function is at fault           (502; exit 1)
    │   └── FunctionTimedOut … it took too long (504)
    ├── RateLimited         slow down                          (429; exit 5)
    ├── NoCapacity          wait, or ask for less              (503; exit 5)
    ├── Unavailable         try again                          (503; exit 6)
    └── InternalError       report it                          (500; exit 6)

Each class has a stable ``code`` and says whether a retry of the same call can succeed;
HTTP status, CLI exit code and the log field all come from the attributes of the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


class ComputeError(Exception):
    """Root of the platform's errors.

    ``message`` says what went wrong and why, ``hint`` what to do next; ``data`` is shown to the caller.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 6
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one field; ``field`` is a dotted path such as ``resources.memory_mib``."""

    field: str
    message: str
    code: str = "invalid"
    hint: str | None = None

    def as_json(self) -> dict[str, str]:
        """The problem as the JSON object that problem details carry in ``errors``."""
        shown = {"field": self.field, "code": self.code, "message": self.message, "hint": self.hint}
        return {name: value for name, value in shown.items() if value is not None}


class InvalidRequest(ComputeError):
    """The request is not one that the platform understands; ``fields`` names each culprit."""

    code = "invalid_request"
    title = "The request is not valid"
    status = 400
    exit_code = 2

    def __init__(
        self, message: str, *, fields: Iterable[FieldProblem] = (), hint: str | None = None, **data: Any
    ) -> None:
        super().__init__(message, hint=hint, **data)
        self.fields = tuple(fields)


class InvalidSpec(InvalidRequest):
    """A job spec has unknown, missing or out-of-bounds fields."""

    code = "invalid_spec"
    title = "The job spec is not valid"


class NotSupported(InvalidRequest):
    """The request asks for a feature that this platform does not have."""

    code = "not_supported"
    title = "Not supported"


class PayloadTooLarge(InvalidRequest):
    """A body, blob or inline value is over its bound."""

    code = "too_large"
    title = "Too large"
    status = 413


class Unauthenticated(ComputeError):
    """No credential, or one that is not known."""

    code = "unauthenticated"
    title = "A credential is needed"
    status = 401
    exit_code = 4


class PermissionDenied(ComputeError):
    """The credential is known and may not do this."""

    code = "permission_denied"
    title = "Not allowed"
    status = 403
    exit_code = 4


class Rejected(ComputeError):
    """What was presented does not prove what it should; ``data["name"]`` says which part of it does not hold."""

    code = "rejected"
    title = "Rejected"
    status = 422
    exit_code = 4


class NotComparable(ComputeError):
    """A run cannot be compared with what was signed, and why: that is no word against either."""

    code = "not_comparable"
    title = "Not comparable"
    status = 422
    exit_code = 3


class EvidenceUnavailable(ComputeError):
    """This machine gives no evidence, or a part of it does not do what it should; that is no word against it."""

    code = "evidence_unavailable"
    title = "No evidence"
    status = 503
    exit_code = 3


class NotFound(ComputeError):
    """No such thing, or not one of this tenant's (the answer is the same)."""

    code = "not_found"
    title = "Not found"
    status = 404
    exit_code = 2


class Conflict(ComputeError):
    """The resource is in another state than the call needs."""

    code = "conflict"
    title = "Conflict"
    status = 409
    exit_code = 2


class StaleFence(Conflict):
    """The attempt that speaks is not the attempt that holds the job: it must stop and discard its work."""

    code = "stale_fence"
    title = "This attempt no longer holds the job"


class IdempotencyMismatch(Conflict):
    """The same ``Idempotency-Key`` came with another body."""

    code = "idempotency_mismatch"
    title = "Idempotency key used with another body"


class FunctionFailed(ComputeError):
    """The function that was called did not end well; ``data`` says how."""

    code = "function_failed"
    title = "The function failed"
    status = 502
    exit_code = 1


class FunctionTimedOut(FunctionFailed):
    """The function that was called took too long."""

    code = "function_timed_out"
    title = "The function took too long"
    status = 504


class RateLimited(ComputeError):
    """Too many requests; ``data["retry_after_s"]`` says when to come back."""

    code = "rate_limited"
    title = "Too many requests"
    status = 429
    exit_code = 5
    retryable = True


class NoCapacity(ComputeError):
    """Nothing here can run this job now."""

    code = "no_capacity"
    title = "No capacity"
    status = 503
    exit_code = 5
    retryable = True


class Unavailable(ComputeError):
    """The platform, or what it stands on, cannot answer now. The call may have taken effect: repeat it safely."""

    code = "unavailable"
    title = "Unavailable"
    status = 503
    exit_code = 6
    retryable = True


class InternalError(ComputeError):
    """A defect of the platform: the log has the details under the request id."""


def subclasses(root: type[ComputeError] = ComputeError) -> list[type[ComputeError]]:
    """Every error class, the root first."""
    found = [root]
    for child in root.__subclasses__():
        found.extend(subclasses(child))
    return found


def by_code() -> Mapping[str, type[ComputeError]]:
    """The classes by their ``code``: how a client turns a problem document back into an error."""
    table: dict[str, type[ComputeError]] = {}
    for cls in subclasses():
        table.setdefault(cls.code, cls)
    return table
