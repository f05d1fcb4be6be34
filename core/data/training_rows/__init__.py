"""Training rows, in whatever shape they come, and the form of prepared datasets."""
