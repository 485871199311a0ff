"""The configuration: its schema, how it is read, and its reference."""
