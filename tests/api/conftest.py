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
