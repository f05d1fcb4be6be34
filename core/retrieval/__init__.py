"""A corpus as vectors on disk, and what is nearest to a query in it."""
