"""How well poses, tracks and filters do, measured on images and clips."""
