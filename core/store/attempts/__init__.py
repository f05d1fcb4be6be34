"""What a worker does to the row of a job that it runs."""
