"""Builds the model files from the published weights; needs the `convert` extra."""
