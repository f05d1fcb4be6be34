"""The API in process."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from core.settings import Settings
from migrations import upgrade


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    """On an empty SQLite database."""
    upgrade(settings.database_url)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def on_both(settings: Settings, database_url: str) -> Iterator[TestClient]:
    """On an empty database: SQLite, then PostgreSQL."""
    upgrade(database_url)
    app = create_app(settings.model_copy(update={"database_url": database_url}))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
