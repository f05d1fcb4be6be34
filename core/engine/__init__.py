"""Token ids into micro-batches into vectors and losses: what training, evaluation and mining share."""
