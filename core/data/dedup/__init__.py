"""Near repetitions among texts."""
