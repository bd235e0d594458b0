"""Layers: tar archives made into directories in overlay form, and back."""
