"""One file a noun, thin: check, call the store, show."""
