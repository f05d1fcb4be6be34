"""How long what jobs have made is kept: what needs it, how it is deleted, and when its files go."""
