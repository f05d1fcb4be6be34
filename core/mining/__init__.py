"""Negatives out of whole corpora: encode, search, filter, mine: one step a file."""
