"""Negatives out of whole corpora: search, filter, mine: one step a file."""
