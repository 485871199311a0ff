"""Pixels: cutting, scaling, drawing."""
