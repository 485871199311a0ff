"""Faults injected into a real daemon: `python -m tests.chaos`."""
