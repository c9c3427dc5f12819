"""Measures on networks that were trained on protected and on clean samples."""
