"""The checks of `edgepose doctor`: what is there, what is missing, and the one remedy."""
