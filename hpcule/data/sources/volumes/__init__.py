"""Volumes as samples: how they and their masks lie in folders, and how they are read."""
