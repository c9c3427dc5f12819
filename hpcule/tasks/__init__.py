"""Tasks: what is learnt from samples, how a network's answers are marked, and what guessing would reach."""
