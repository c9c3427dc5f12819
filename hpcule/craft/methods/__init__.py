"""Ways to craft: one file a method."""
