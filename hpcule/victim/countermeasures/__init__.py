"""What attackers do to published samples or to training to undo a protection."""
