"""Pipelines: several specs that are submitted together."""
