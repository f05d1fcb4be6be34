"""Rows of text: what a reader gives, how it is read, and what was remarkable or rejected."""
