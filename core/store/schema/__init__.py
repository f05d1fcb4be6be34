"""Tables, the engine's settings, whose rows are visible, cursors of pages."""
