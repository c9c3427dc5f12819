"""What a number means: accuracy with its interval, visibility."""
