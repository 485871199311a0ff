"""Smoothing of tracked keypoints."""
