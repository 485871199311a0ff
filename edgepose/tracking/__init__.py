"""Tracking: the identity of poses from frame to frame."""
