"""What is measured, against whom. Reports are committed beside the code that made them."""
