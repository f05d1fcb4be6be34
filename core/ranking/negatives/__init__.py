"""Which of the nearest documents of a query may be its negatives, in mine jobs and while training."""
