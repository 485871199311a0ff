"""How well and how fast the models do, measured with the same parts that the daemon runs."""
