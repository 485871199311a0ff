"""Helpers that are not about poses, cameras or MQTT."""
