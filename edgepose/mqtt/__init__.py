"""Everything between a message and the broker."""
