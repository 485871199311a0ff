"""Measurements of this host and of the pipeline."""
