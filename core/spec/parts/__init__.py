"""What several kinds of specs are made of."""
