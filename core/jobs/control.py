"""Words on the control pipe between a worker and a job's process."""

HEARTBEAT = "heartbeat"
"""The lease was renewed. Every other word asks the job to stop: cancel, pause, timeout, shutdown, storage."""
