"""A prepare job: records into one clean dataset."""
