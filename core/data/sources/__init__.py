"""What a reference holds: rows, a corpus, a retrieval set, documents."""
