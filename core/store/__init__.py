"""The only writer of rows. Each method is one short transaction."""

from core.store.schema.database import Database, open_database
from core.store.store import Store, open_store

__all__ = ["Database", "Store", "open_database", "open_store"]
