"""The migrations make the tables that the code expects, on both databases."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from core.store import open_database
from core.store.schema.tables import Base
from migrations import is_current, upgrade


def test_migrations_equal_the_tables(database_url: str):
    upgrade(database_url)
    database = open_database(database_url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert is_current(database)
    database.engine.dispose()


def test_upgrading_twice_changes_nothing(database_url: str):
    database = open_database(database_url)
    assert not is_current(database)
    upgrade(database_url)
    upgrade(database_url)
    assert is_current(database)
    database.engine.dispose()
