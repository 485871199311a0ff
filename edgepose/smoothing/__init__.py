"""What takes the jitter out of keypoints."""
