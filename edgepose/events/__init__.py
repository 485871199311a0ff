"""Events detected in tracked poses."""
