"""The verbs. Heavy imports stay inside them, so that every `--help` answers at once."""
