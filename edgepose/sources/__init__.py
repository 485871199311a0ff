"""Frame sources, one module for each kind."""
