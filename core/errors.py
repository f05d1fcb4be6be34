"""One tree of errors. A class has an error code and an HTTP status; `api/errors.py` makes the response.

::

    ReasonError
    +-- InvalidRequest            422  the payload does not validate
    +-- BadRequest                400  the call is not valid (for example a bad cursor)
    +-- ClientGone                499  the client closed the connection
    +-- Unauthorized              401  no API key, or an unknown one
    +-- Forbidden                 403  the key, or a path, does not allow it
    +-- NotFound                  404
    +-- Conflict                  409  the state does not allow the call
    +-- TooLarge                  413
    +-- TooManyRequests           429  too many wrong API keys from one address
    +-- Unavailable               503  database, broker or storage not reachable
    +-- StaleLease                     this worker no longer holds the job: stop, write nothing
    +-- ServiceUnreachable             the client found no service
    +-- JobFailure                     a job fails; has the code of an EndReason
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
    """One error of a request: the path of the field (``lengths.query``) and a message."""

    path: str
    message: str


class ReasonError(Exception):
    """The base of all errors with a message for the user."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retry_after: int | None = None  # seconds, if the same request may succeed later
    extra: Mapping[str, Any] = MappingProxyType({})  # further fields of the response

    def __init__(self, message: str = "", problems: list[Problem] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class InvalidRequest(ReasonError):
    code = "invalid_request"
    status = 422
    title = "The request is not valid"


class BadRequest(ReasonError):
    code = "bad_request"
    status = 400
    title = "The request is not valid"


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
    title = "The current state does not allow this"


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
    title = "A part of the service is not reachable"
    retry_after = 2


class StaleLease(ReasonError):
    """The row no longer has this worker's lease. The worker must stop and write nothing more."""

    code = "stale_lease"


class ServiceUnreachable(ReasonError):
    code = "service_unreachable"


class JobFailure(ReasonError):
    """Raised inside a job that must fail. ``code`` is that of an `EndReason`."""

    code = "crashed"


class BadData(JobFailure):
    code = "bad_data"


class BadModel(JobFailure):
    code = "bad_model"


class EndpointFailure(JobFailure):
    code = "endpoint_failed"


class BadSpec(JobFailure):
    code = "bad_spec"


class StorageFailure(JobFailure):
    code = "storage_failed"
    status = 503
    title = "The artifact storage is not reachable"
    retry_after = 2


class OutOfMemory(JobFailure):
    code = "out_of_memory"


class ProcessDied(JobFailure):
    """One of the processes of a job was killed."""

    code = "process_died"


class Diverged(JobFailure):
    code = "diverged"
