"""Loading models of every family, and telling them apart by content."""
