"""Detection: where in a frame the model runs, and which of its poses count."""
