"""One tree of errors. A class carries its wire code and HTTP status; `api/errors.py` turns it into a body.

::

    ReasonError
    +-- InvalidRequest            422  the payload does not validate
    +-- BadRequest                400  the call makes no sense (a bad cursor, say)
    +-- ClientGone                499  the client closed the connection: nobody reads the answer
    +-- Unauthorized              401  no key, or not a known one
    +-- Forbidden                 403  the key, or a path, does not allow it
    +-- NotFound                  404
    +-- Conflict                  409  the state does not allow the call
    +-- TooLarge                  413
    +-- TooManyRequests           429  too many wrong API keys from one address
    +-- Unavailable               503  database, broker or storage away
    +-- StaleLease                     this worker no longer holds the job: stop, write nothing
    +-- ServiceUnreachable             the client found no service
    +-- JobFailure                     a job cannot go on; carries the EndReason's code
        +-- BadData
        +-- BadModel
        +-- BadSpec
        +-- StorageFailure
        +-- OutOfMemory
        +-- Diverged
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar


@dataclass(frozen=True)
class Problem:
    """One fault of a payload: where it is (``lengths.query``) and what is wrong with it."""

    path: str
    message: str


class ReasonError(Exception):
    """Something went wrong that the service knows a sentence for."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retry_after: int | None = None  # seconds, where the same request may succeed later
    extra: Mapping[str, Any] = MappingProxyType({})  # what the answer has beside the problem's own fields

    def __init__(self, message: str = "", problems: list[Problem] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class InvalidRequest(ReasonError):
    code = "invalid_request"
    status = 422
    title = "The request does not validate"


class BadRequest(ReasonError):
    code = "bad_request"
    status = 400
    title = "The request cannot be understood"


class ClientGone(ReasonError):
    code = "client_gone"
    status = 499
    title = "The client closed the connection"

    def __init__(self) -> None:
        super().__init__("The client closed the connection before the answer")


class Unauthorized(ReasonError):
    code = "unauthorized"
    status = 401
    title = "An API key is required"


class Forbidden(ReasonError):
    code = "forbidden"
    status = 403
    title = "Not allowed"


class NotFound(ReasonError):
    code = "not_found"
    status = 404
    title = "Not found"


class Conflict(ReasonError):
    code = "conflict"
    status = 409
    title = "The state does not allow this"


class TooLarge(ReasonError):
    code = "too_large"
    status = 413
    title = "The body is too large"


class TooManyRequests(ReasonError):
    """``retry_after``: seconds until the address may try a key again."""

    code = "too_many_requests"
    status = 429
    title = "Too many wrong API keys"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(ReasonError):
    code = "unavailable"
    status = 503
    title = "A part of the service is away"
    retry_after = 2


class StaleLease(ReasonError):
    """The row no longer carries this worker's lease. Whoever sees this stops and writes nothing more."""

    code = "stale_lease"


class ServiceUnreachable(ReasonError):
    code = "service_unreachable"


class JobFailure(ReasonError):
    """Raised inside a job: it cannot go on. ``code`` names an `EndReason`."""

    code = "crashed"


class BadData(JobFailure):
    code = "bad_data"


class BadModel(JobFailure):
    code = "bad_model"


class BadSpec(JobFailure):
    code = "bad_spec"


class StorageFailure(JobFailure):
    code = "storage_failed"
    status = 503
    title = "The artifact storage is away"
    retry_after = 2


class OutOfMemory(JobFailure):
    code = "out_of_memory"


class ProcessDied(JobFailure):
    """One of the processes of a job was killed."""

    code = "process_died"


class Diverged(JobFailure):
    code = "diverged"
