"""Claims jobs and supervises their processes."""
