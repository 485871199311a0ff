"""What goes wrong around an always-on daemon, done to a real one: `python -m tests.chaos`."""
