"""``python -m migrations``: bring the database to the newest version."""

import sys

from core.errors import Unavailable
from core.settings import Settings
from migrations import upgrade

if __name__ == "__main__":
    settings = Settings()
    try:
        upgrade(settings.database_url)
    except Unavailable as error:
        sys.exit(f"reason: {error}")
    print("The database is at the newest version.")
