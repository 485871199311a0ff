"""What the tensors of each kind of model mean."""
