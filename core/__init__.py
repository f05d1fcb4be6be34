"""What every room shares: specs, job states, rows, artifacts and the training library."""

__version__ = "0.1.0"
