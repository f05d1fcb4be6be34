"""Files into rows of text. No torch here: uploads use the same readers."""
