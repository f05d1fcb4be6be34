"""What every test can ask for: databases, tiny real models, real data, a running service."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores; read by torch when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from core.settings import Settings
from core.store import Store, open_store
from migrations import upgrade

# Helpers that assert for tests: what they compare is shown, as in a test.
pytest.register_assert_rewrite("tests.faults.checks", "tests.training.running")

# How long an example takes says nothing on a machine that does other work.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


_OF_SERVICES = {"postgres_url", "redis_url"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks by what a test needs, so that each kind can be left out: ``pytest -m "not faults"``."""
    for item in items:
        if Path(__file__).parent / "faults" in item.path.parents:
            item.add_marker("faults")
        names = set(getattr(item, "fixturenames", ()))
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if names & _OF_SERVICES or "postgresql" in parameters.values():
            item.add_marker("services")


def _server(name: str) -> str:
    """Set by scripts/with_services.sh, which `make test` runs under: there nothing is skipped."""
    url = os.environ.get(name)
    if not url:
        pytest.skip(f"needs {name}: `make test` starts the servers")
    return url


def postgres_server() -> str:
    return _server("REASON_TEST_POSTGRES")


def redis_server() -> str:
    """A database of this process's own: tests empty it."""
    server, _, database = _server("REASON_TEST_REDIS").rpartition("/")
    return f"{server}/{int(database) - int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database of its own."""
    name = f"reason_test_{uuid.uuid4().hex[:12]}"
    server = postgres_server()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def redis_url() -> str:
    """A database of this process's own."""
    return redis_server()


@pytest.fixture
def s3_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of moto's server, reached as any other S3: by the environment."""
    import boto3
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    S3FileSystem.clear_instance_cache()  # of the server of another test
    bucket = uuid.uuid4().hex
    boto3.client("s3").create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/reason"
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both databases, one after the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'reason.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An embedded service in a folder of its own, whatever the environment says."""
    for name in [
        name for name in os.environ if name.startswith("REASON_") and not name.startswith("REASON_TEST")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Settings(data_dir=tmp_path / "data", retry_base_seconds=0.05)


@pytest.fixture
def store(settings: Settings, database_url: str) -> Iterator[Store]:
    """A migrated store, on SQLite and on PostgreSQL."""
    upgrade(database_url)
    opened = open_store(settings.model_copy(update={"database_url": database_url}))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bi-encoder of two layers and 32 dimensions, with a tokenizer trained on a few lines."""
    from tests.tiny import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty-four pairs whose queries share words with their documents."""
    from tests.tiny import WORDS

    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    lines = []
    for index in range(64):
        first, second, third = (WORDS[(index * step + index // 7) % len(WORDS)] for step in (1, 3, 5))
        row = {
            "query": f"what is {first} {second}",
            "positive": f"{first} {second} {third} is document {index}",
        }
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
