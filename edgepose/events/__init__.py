"""What changed, read from tracked poses."""
