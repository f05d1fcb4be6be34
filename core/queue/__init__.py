"""Wake-ups for workers, through Celery. The queue itself is rows: see `core.store`."""
