"""Rankings: exact search, BM25, metrics, and how a retrieval set is ranked."""
