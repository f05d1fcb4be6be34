"""A job's process: `python -m core.run RUN_DIR`. It knows files and pipes, never the database."""
