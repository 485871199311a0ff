"""Fakes that several test modules use."""
