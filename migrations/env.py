"""How alembic reaches the database: through the store's own engine."""

from alembic import context
from sqlalchemy import text

from core.store.schema.database import open_database
from core.store.schema.tables import Base

_LOCK = 0x726561736F6E  # "reason": one migration at a time, whichever host starts it


def run() -> None:
    database = open_database(context.config.attributes["url"])
    with database.write() as session:
        connection = session.connection()
        if not database.sqlite:
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # another host's migration may take long
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True
        )
        context.run_migrations()
    database.engine.dispose()


run()
