"""What this host and the line report about themselves."""
