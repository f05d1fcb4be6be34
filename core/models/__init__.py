"""A model's folder as files: what it says that it is, and whether it is whole. No torch."""
