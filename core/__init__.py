"""What every room shares: specs, job states, rows, artifacts and the training library."""
