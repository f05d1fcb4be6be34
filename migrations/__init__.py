"""The database's versions (alembic). `upgrade()` brings any of them to the newest."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from core.store.schema.database import Database


def config(url: str) -> Config:
    """Alembic's configuration, made here rather than read from an ini file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.attributes["url"] = url
    return made


def upgrade(url: str) -> None:
    """To the newest version. Safe to call from several hosts at once and when there is nothing to do."""
    command.upgrade(config(url), "head")


def is_current(database: Database) -> bool:
    """Whether the database has the version that this code expects. Raises `Unavailable`."""
    head = ScriptDirectory.from_config(config("")).get_current_head()
    with database.read() as session:
        return MigrationContext.configure(session.connection()).get_current_revision() == head
