"""A job's process: `python -m core.process RUN_DIR`. It knows files and pipes, never the database."""
