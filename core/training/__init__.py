"""Training, the same for every family: batches, lengths, checkpoints, callbacks and the loop."""
