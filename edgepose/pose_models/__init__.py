"""The meaning of the tensors of each kind of model."""
