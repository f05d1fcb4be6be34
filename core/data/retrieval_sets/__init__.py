"""Retrieval sets: queries, a corpus and judgments."""
