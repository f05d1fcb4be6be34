"""Checkpoints on disk and in remote storage, and when one may be gone on from."""
