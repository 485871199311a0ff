"""From the published weights to the model files; needs the `convert` extra."""
