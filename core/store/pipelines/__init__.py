"""Rows of pipelines, and of their events."""
