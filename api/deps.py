"""What routes ask for, by type."""

from typing import Annotated, cast

from fastapi import Depends, Query, Request

from api.auth import Principal, authenticate
from core.artifacts import Library
from core.queue import Queue
from core.settings import Settings
from core.store import Store


def _store(request: Request) -> Store:
    return cast(Store, request.app.state.store)


def _settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


def _queue(request: Request) -> Queue:
    return cast(Queue, request.app.state.queue)


def _library(request: Request) -> Library:
    return cast(Library, request.app.state.library)


def _reader(request: Request) -> Principal:
    return authenticate(request, _store(request), "read")


def _submitter(request: Request) -> Principal:
    return authenticate(request, _store(request), "submit")


def _admin(request: Request) -> Principal:
    return authenticate(request, _store(request), "admin")


StoreDep = Annotated[Store, Depends(_store)]
SettingsDep = Annotated[Settings, Depends(_settings)]
QueueDep = Annotated[Queue, Depends(_queue)]
LibraryDep = Annotated[Library, Depends(_library)]
Reader = Annotated[Principal, Depends(_reader)]
Submitter = Annotated[Principal, Depends(_submitter)]
Admin = Annotated[Principal, Depends(_admin)]
MAX_NUMBER = 2**31 - 1
"""The largest sequence number that a row can have."""

Limit = Annotated[int, Query(ge=1, le=500, description="Items a page.")]
Cursor = Annotated[str | None, Query(max_length=300, description="The next_cursor of the page before.")]
