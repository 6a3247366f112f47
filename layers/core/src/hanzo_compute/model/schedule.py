"""A schedule: when its jobs are submitted, and where it is in time."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from hanzo_compute.model import bounds
from hanzo_compute.model.cron import Cron, zone_of
from hanzo_compute.model.spec import LABEL_NAME, JobSpec, format_time

Status = Literal["submitted", "partial", "failed", "missed", "overlapped"]
"""What became of a time: all, some or none of its jobs were submitted; it was missed; the run before had not ended."""

NAME: Final = LABEL_NAME
"""What a schedule can be called."""


def _cron(value: str) -> str:
    try:
        Cron.parse(value)
    except ValueError as error:
        raise PydanticCustomError("cron", "{why}", {"why": str(error)}) from None
    return " ".join(value.split())


def _zone(value: str) -> str:
    try:
        zone_of(value)
    except ValueError as error:
        raise PydanticCustomError("timezone", "{why}", {"why": str(error)}) from None
    return value


class ScheduleSpec(BaseModel):
    """What a client asks for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cron: Annotated[str, Field(max_length=bounds.CRON_MAX), AfterValidator(_cron)] = Field(
        description="Minute, hour, day of month, month, day of week; like `*/5 8-18 * * mon-fri`."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="IANA name of the time zone whose clocks `cron` is read against."
    )
    jobs: list[JobSpec] = Field(
        min_length=1, max_length=bounds.SCHEDULE_JOBS_MAX, description="What is submitted at each time; one or several."
    )
    missed: Literal["skip", "once", "all"] = Field(
        default="skip",
        description="What becomes of times that passed while the platform was down: nothing, one run for all of them, "
        "or a run for each of the last 100.",
    )
    overlap: Literal["allow", "skip"] = Field(
        default="allow", description="`skip`: no run while jobs of the run before have not ended."
    )
    paused: bool = Field(default=False, description="It has no times until it is resumed.")

    @model_validator(mode="before")
    @classmethod
    def _one_job(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("jobs"), dict):
            return {**value, "jobs": [value["jobs"]]}
        return value

    @model_validator(mode="after")
    def _repeatable(self) -> ScheduleSpec:
        for number, job in enumerate(self.jobs):
            if job.deadline is not None:
                raise PydanticCustomError(
                    "deadline",
                    "a deadline is one point in time, and these jobs come again: leave it out (resources.timeout_s "
                    "bounds an attempt)",
                    {"field": f"jobs.{number}.deadline"},
                )
        return self


@dataclass(frozen=True, slots=True)
class Firing:
    """A run that has begun and is not on record yet: some of its jobs may have been submitted."""

    at_ms: int
    done: int = 0
    """How many of the jobs have been submitted, or refused for good."""
    jobs: tuple[str, ...] = ()
    errors: tuple[dict[str, Any], ...] = ()
    until_ms: int | None = None
    """When what is refused for now is given up; None while nothing is."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The record that moves. Times are milliseconds since the epoch; the jobs are in a record of their own."""

    tenant: str
    name: str
    cron: str
    timezone: str
    missed: str
    overlap: str
    paused: bool
    count: int
    """How many jobs it has."""
    spec: str
    """Digest of the record that holds them."""
    created_ms: int
    updated_ms: int
    revision: int = 1
    """Counts what clients changed."""
    runs: int = 0
    """Counts the runs that are on record."""
    next_ms: int | None = None
    """The next time for which no run has begun."""
    due_ms: int | None = None
    """When the reconciler looks at it."""
    acted_ms: int = 0
    """What the clock said when ``next_ms`` was found."""
    firing: Firing | None = None
    last_ms: int | None = None
    """Time of the last run that submitted anything, and its jobs."""
    last_jobs: tuple[str, ...] = ()
    last_error: dict[str, Any] | None = None
    """What was last refused, until a run submits all of its jobs."""

    @classmethod
    def from_record(cls, body: dict[str, Any]) -> Schedule:
        """The schedule that a stored record holds."""
        found = {**body, "last_jobs": tuple(body.get("last_jobs", ()))}
        if "firing" in body:
            firing = body["firing"]
            found["firing"] = Firing(
                **{**firing, "jobs": tuple(firing["jobs"]), "errors": tuple(firing["errors"])},
            )
        return cls(**found)

    def record(self) -> dict[str, Any]:
        """The record to store; what is None is left out."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found["last_jobs"] = list(self.last_jobs)
        if self.firing is not None:
            found["firing"] = {each.name: getattr(self.firing, each.name) for each in fields(self.firing)}
            found["firing"] |= {"jobs": list(self.firing.jobs), "errors": list(self.firing.errors)}
        return {name: value for name, value in found.items() if value is not None}

    def summary(self) -> dict[str, Any]:
        """The columns of a list."""
        shown: dict[str, Any] = {
            "name": self.name,
            "revision": self.revision,
            "cron": self.cron,
            "timezone": self.timezone,
            "paused": self.paused,
            "jobs": self.count,
            "runs": self.runs,
            "next_at": None if self.next_ms is None else format_time(self.next_ms),
            "last_at": None if self.last_ms is None else format_time(self.last_ms),
            "created_at": format_time(self.created_ms),
            "updated_at": format_time(self.updated_ms),
        }
        return shown if self.last_error is None else shown | {"last_error": self.last_error}


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a time, or of several in a row that were missed (``until_ms``)."""

    number: int
    at_ms: int
    status: Status
    ended_ms: int
    jobs: tuple[str, ...] = ()
    errors: tuple[dict[str, Any], ...] = field(default=())
    until_ms: int | None = None

    def record(self) -> dict[str, Any]:
        """The record to store."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found |= {"jobs": list(self.jobs), "errors": list(self.errors)}
        return {name: value for name, value in found.items() if value is not None}

    @staticmethod
    def view(body: dict[str, Any]) -> dict[str, Any]:
        """A stored run as the API shows it."""
        shown = {"at": format_time(body["at_ms"]), "status": body["status"], "jobs": body["jobs"]}
        if "until_ms" in body:
            shown["until"] = format_time(body["until_ms"])
        if body["errors"]:
            shown["errors"] = body["errors"]
        return shown | {"recorded_at": format_time(body["ended_ms"])}
