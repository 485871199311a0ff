"""What Home Assistant is sent, so that it finds the node and its cameras."""
