"""Messages on the control pipe from a worker to a job's process."""

HEARTBEAT = "heartbeat"
"""The lease was renewed. Other messages ask the job to stop: cancel, pause, timeout, shutdown, storage."""
